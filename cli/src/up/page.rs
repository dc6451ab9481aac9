//! The page that `up` serves itself, for an instance that has no server of its own yet: `target: page`.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use latchkey_agent::certificates::{CertificateFacts, Certificates};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinHandle};

/// Connections at once; the agent in this process is the only client.
const CONNECTIONS: usize = 64;
const HEAD_TIME: Duration = Duration::from_secs(10);

/// A page that is served. Dropping it ends it.
#[derive(Debug)]
pub struct Page {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Page {
    /// Serves the page of that instance on a free port of this machine.
    pub async fn start(instance: &str, certificates: Arc<Certificates>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(serve(listener, Arc::from(instance), certificates));
        Ok(Self { address, task })
    }

    /// Where it is served.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, instance: Arc<str>, certificates: Arc<Certificates>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (instance, certificates) = (instance.clone(), certificates.clone());
        tokio::spawn(async move {
            let _permit = permit;
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = answer(
                    request.method(),
                    request.uri().path(),
                    &instance,
                    certificates.facts().as_deref(),
                );
                async move { Ok::<_, Infallible>(answer) }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIME)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

fn answer(
    method: &Method,
    path: &str,
    instance: &str,
    facts: Option<&CertificateFacts>,
) -> Response<Full<Bytes>> {
    let (status, body) = if method != Method::GET && method != Method::HEAD {
        (StatusCode::METHOD_NOT_ALLOWED, "Only GET here.\n".to_owned())
    } else if path != "/" {
        (StatusCode::NOT_FOUND, "There is one page here: /\n".to_owned())
    } else {
        (StatusCode::OK, html(instance, facts))
    };
    let kind =
        if status == StatusCode::OK { "text/html; charset=utf-8" } else { "text/plain; charset=utf-8" };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'"),
    );
    response
}

/// Names of instances and fingerprints have no letter that means something in HTML.
fn html(instance: &str, facts: Option<&CertificateFacts>) -> String {
    let (hex, pairs) = facts.map_or_else(
        || ("not known yet: reload in a moment".to_owned(), String::new()),
        |facts| (facts.fingerprint_sha256.clone(), facts.fingerprint_as_browsers_show_it()),
    );
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>It works: {instance}</title>\n\
         <style>body{{font:1.1rem/1.5 system-ui,sans-serif;max-width:44rem;margin:3rem auto;padding:0 1rem}}\
         code{{overflow-wrap:anywhere;background:#8882;padding:.1rem .3rem}}</style>\n\
         <h1>It works</h1>\n\
         <p>This page is served by <strong>{instance}</strong>. It came through the proxy and a tunnel, and its TLS ended \
         at the instance, under the instance's own key.\n\
         <p>Your browser should show a certificate with this SHA-256 fingerprint, and so should the terminal:\n\
         <p><code id=\"fingerprint\">{hex}</code>\n<p><code>{pairs}</code>\n\
         <p>Next: set the annotation <code>latchkey.dev/target</code> to the address of a server of yours.\n</html>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_the_instance_and_what_to_compare() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec!["a.x".into()]).unwrap().self_signed(&key).unwrap();
        let facts = CertificateFacts::of(certificate.der()).unwrap();
        let page = html("default/hello", Some(&facts));
        for part in
            ["It works", "default/hello", &facts.fingerprint_sha256, &facts.fingerprint_as_browsers_show_it()]
        {
            assert!(page.contains(part), "{part}");
        }
        assert_eq!(answer(&Method::POST, "/", "a/b", None).status(), 405);
        assert_eq!(answer(&Method::GET, "/x", "a/b", None).status(), 404);
        assert_eq!(answer(&Method::GET, "/", "a/b", None).status(), 200);
    }
}
