//! Everything of a kind that there is, in one answer of the API server that is read as it comes.
//!
//! An answer without pages comes from the API server's memory, and costs it less than a list that is streamed as events.
//! It has to come within a minute, however, since API servers end every request then but a watch. Where one breaks off, the
//! next list is made in pages, each from a request of its own.

use std::time::Duration;

use futures_util::AsyncBufReadExt as _;
use kube::api::ListParams;
use kube::core::{ListMeta, Request};
use kube::{Api, Client, Resource};
use serde::Deserialize;
use tokio::time::timeout;

use super::cutting::{Cutter, TooLong};
use super::listed::{Kind, Listed};

/// Objects of a page, where there are pages.
const PAGE: u32 = 10_000;
/// An API server that says nothing for so long is gone: it answers within a minute or not at all.
const SILENT: Duration = Duration::from_secs(75);

/// Why there is no list.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListError {
    #[error(transparent)]
    Client(#[from] kube::Error),
    #[error("the answer broke off: {0}")]
    BrokeOff(std::io::Error),
    #[error("nothing was heard for {} s", SILENT.as_secs())]
    Silent,
    #[error(transparent)]
    TooLong(#[from] TooLong),
    #[error("the answer makes no sense: {0}")]
    Nonsense(#[from] serde_json::Error),
    #[error("a list without a version")]
    NoVersion,
}

/// Lists a kind.
pub(super) struct Lister<T: Kind> {
    client: Client,
    api: Api<Listed<T>>,
    in_pages: bool,
}

impl<T: Kind> Lister<T>
where
    Listed<T>: Resource<DynamicType = ()>,
{
    pub(super) fn new(api: &Api<Listed<T>>) -> Self {
        Self { client: api.clone().into_client(), api: api.clone(), in_pages: false }
    }

    /// Hands over every object. Gives the version that changes are to be told from.
    pub(super) async fn list(&mut self, mut each: impl FnMut(Listed<T>)) -> Result<String, ListError> {
        let mut parameters = ListParams { limit: self.in_pages.then_some(PAGE), ..ListParams::default() };
        loop {
            let told = match self.answer(&parameters, &mut each).await {
                Err(error @ (ListError::BrokeOff(_) | ListError::Silent)) => {
                    self.in_pages = true;
                    return Err(error);
                }
                told => told?,
            };
            let ListMeta { continue_, resource_version, .. } = told;
            match continue_.filter(|next| !next.is_empty()) {
                Some(next) => parameters.continue_token = Some(next),
                None => {
                    return resource_version
                        .filter(|version| !version.is_empty())
                        .ok_or(ListError::NoVersion);
                }
            }
        }
    }

    async fn answer(
        &self,
        parameters: &ListParams,
        each: &mut impl FnMut(Listed<T>),
    ) -> Result<ListMeta, ListError> {
        #[derive(Deserialize)]
        struct Rest {
            metadata: ListMeta,
        }

        let request = Request::new(self.api.resource_url()).list(parameters);
        let request = request.map_err(kube::Error::BuildRequest)?;
        let answer = timeout(SILENT, self.client.request_stream(request)).await;
        let mut answer = std::pin::pin!(answer.map_err(|_| ListError::Silent)??);
        let mut cutter = Cutter::default();
        loop {
            let piece = timeout(SILENT, answer.fill_buf()).await;
            let piece = piece.map_err(|_| ListError::Silent)?.map_err(ListError::BrokeOff)?;
            if piece.is_empty() {
                break;
            }
            let mut nonsense = None;
            cutter.take(piece, |object| match Listed::read(object) {
                Ok(object) => each(object),
                Err(error) => nonsense = Some(error),
            })?;
            if let Some(nonsense) = nonsense {
                return Err(nonsense.into());
            }
            let read = piece.len();
            answer.consume_unpin(read);
            // Others have their turn, however fast it comes.
            tokio::task::consume_budget().await;
        }
        Ok(serde_json::from_slice::<Rest>(cutter.rest())?.metadata)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};

    use http::{Request, Response};
    use http_body_util::StreamBody;
    use hyper::body::{Bytes, Frame};
    use kube::client::Body;
    use resources::RemoteInstance;
    use serde_json::json;
    use tower::service_fn;

    use super::super::listed::tests::instance;
    use super::*;

    /// What an API server answers next: pieces, the last of which may be a cut.
    type Answer = Vec<Result<String, std::io::Error>>;

    /// Answers one request after another, and notes what was asked.
    fn api_server(answers: Vec<Answer>) -> (Api<Listed<RemoteInstance>>, Arc<Mutex<Vec<String>>>) {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (noted, answers) = (Arc::clone(&asked), Mutex::new(answers.into_iter()));
        let service = service_fn(move |request: Request<Body>| {
            noted.lock().unwrap().push(request.uri().query().unwrap_or_default().to_owned());
            let answer = answers.lock().unwrap().next().unwrap();
            let pieces = answer.into_iter().map(|piece| piece.map(|text| Frame::data(Bytes::from(text))));
            let body = StreamBody::new(futures_util::stream::iter(pieces));
            std::future::ready(Ok::<_, Infallible>(Response::new(body)))
        });
        (Api::all(Client::new(service, "default")), asked)
    }

    fn page(names: &[&str], next: &str) -> String {
        let items: Vec<_> = names.iter().map(|name| instance(name, 7, &json!({}), &json!({}))).collect();
        json!({"items": items, "metadata": {"continue": next, "resourceVersion": "12"}}).to_string()
    }

    #[tokio::test]
    async fn a_list_that_breaks_off_is_made_anew_in_pages() {
        let whole = page(&["cabin", "lake"], "");
        let begun = &whole[..whole.len() - 20];
        let gone = || std::io::Error::other("gone");
        let (api, asked) = api_server(vec![
            vec![Ok(whole[..9].to_owned()), Ok(whole[9..].to_owned())],
            vec![Ok(begun.to_owned()), Err(gone())],
            vec![Ok(page(&["cabin"], "a token"))],
            vec![Ok(page(&["lake"], ""))],
            vec![Ok(begun.to_owned())],
            vec![Ok(r#"{"items": [], "kind": "List"}"#.to_owned())],
        ]);
        let mut lister = Lister::new(&api);
        let mut next = async || {
            let mut names = Vec::new();
            let version = lister.list(|object| names.push(object.key().unwrap().to_string())).await;
            (version, names)
        };
        let all = ["homes/cabin", "homes/lake"];
        let (version, names) = next().await;
        assert_eq!((version.unwrap().as_str(), names), ("12", all.map(str::to_owned).to_vec()));
        let (broken, _) = next().await;
        assert!(matches!(broken, Err(ListError::BrokeOff(_))), "{broken:?}");
        let (version, names) = next().await;
        assert_eq!((version.unwrap().as_str(), names), ("12", all.map(str::to_owned).to_vec()));
        for _ in 0..2 {
            let (nonsense, _) = next().await;
            assert!(matches!(nonsense, Err(ListError::Nonsense(_))), "{nonsense:?}");
        }
        let pages = ["", "", "limit=10000", "limit=10000&continue=a+token", "limit=10000", "limit=10000"];
        let asked: Vec<String> =
            asked.lock().unwrap().iter().map(|query| query.trim_matches('&').to_owned()).collect();
        assert_eq!(asked, pages);
    }
}
