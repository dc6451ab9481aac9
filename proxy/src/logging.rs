//! Log lines: text or JSON, on standard error.
//!
//! The filter is read from `LATCHKEY_LOG` (`info` when unset; `latchkey::visitor=warn,info` and so on). Targets:
//!
//! | target | what |
//! |---|---|
//! | `latchkey::visitor` | one line at the end of every visitor's connection, refused ones included |
//! | `latchkey::tunnel` | tunnels that open and end |
//! | `latchkey::session` | sessions given or refused by the session API |
//! | `latchkey::keys` | Fernet keys and the session API's certificate |
//! | `latchkey::routes` | route tables applied or refused |
//! | `latchkey::admin` | the admin listener |
//!
//! What strangers say (hostnames, versions) is written quoted and escaped.

use std::{fmt, io::IsTerminal, net::IpAddr, str::FromStr, time::Duration};

use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::metrics::{Label as _, RefusalReason, TunnelEndReason, VisitorOutcome};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("{text:?} is no log format: say text or json")),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter is not one.
    #[error("LATCHKEY_LOG={filter:?} is no filter ({reason}); for example: info,latchkey::visitor=warn")]
    Filter {
        /// What it says.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It was set up before.
    #[error("logging was set up twice: {0}")]
    Twice(String),
}

/// Sets up logging for the process, with the filter from `LATCHKEY_LOG`.
pub fn init(format: LogFormat) -> Result<(), LoggingError> {
    let filter = filter(std::env::var("LATCHKEY_LOG").ok().as_deref())?;
    let registry = tracing_subscriber::registry().with(filter);
    let result = match format {
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal();
            let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
            registry.with(layer).try_init()
        }
        LogFormat::Json => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .json()
                    .flatten_event(true)
                    .with_current_span(false)
                    .with_span_list(false)
                    .with_writer(std::io::stderr),
            )
            .try_init(),
    };
    result.map_err(|error| LoggingError::Twice(error.to_string()))
}

fn filter(text: Option<&str>) -> Result<EnvFilter, LoggingError> {
    let text = text.map(str::trim).filter(|text| !text.is_empty()).unwrap_or("info");
    EnvFilter::builder()
        .parse(text)
        .map_err(|error| LoggingError::Filter { filter: text.to_owned(), reason: error.to_string() })
}

/// The end of a visitor's connection that reached a tunnel.
#[derive(Clone, Copy, Debug)]
pub struct VisitorEnd<'a> {
    /// The instance, `namespace/name`; empty without a route table.
    pub instance: &'a str,
    /// The hostname the visitor asked for.
    pub hostname: &'a str,
    /// The visitor's address.
    pub visitor: Option<IpAddr>,
    /// Bytes from the visitor to the instance.
    pub bytes_in: u64,
    /// Bytes from the instance to the visitor.
    pub bytes_out: u64,
    /// How long it lived.
    pub lived: Duration,
    /// Who or what ended it.
    pub by: VisitorOutcome,
}

/// One line at the end of a visitor's connection.
pub fn log_visitor_end(end: &VisitorEnd<'_>) {
    tracing::info!(
        target: "latchkey::visitor",
        instance = end.instance,
        hostname = ?end.hostname,
        visitor = %Address(end.visitor),
        bytes_in = end.bytes_in,
        bytes_out = end.bytes_out,
        seconds = end.lived.as_secs_f64(),
        by = end.by.text(),
        "visitor's connection ended"
    );
}

/// One line for a connection that was turned away.
pub fn log_visitor_refused(
    instance: Option<&str>,
    hostname: Option<&str>,
    visitor: Option<IpAddr>,
    reason: RefusalReason,
) {
    tracing::info!(
        target: "latchkey::visitor",
        instance = instance.unwrap_or_default(),
        hostname = ?hostname.unwrap_or_default(),
        visitor = %Address(visitor),
        reason = reason.text(),
        "visitor refused"
    );
}

/// The end of a tunnel.
#[derive(Clone, Copy, Debug)]
pub struct TunnelEndLine<'a> {
    /// The instance, or the hostname where there is no route table.
    pub instance: &'a str,
    /// The number of the tunnel's session.
    pub session: u64,
    /// The agent's address.
    pub agent: Option<IpAddr>,
    /// How long it lived.
    pub lived: Duration,
    /// Channels it carried.
    pub channels: u64,
    /// Bytes from visitors.
    pub bytes_in: u64,
    /// Bytes to visitors.
    pub bytes_out: u64,
    /// Why it ended.
    pub reason: TunnelEndReason,
    /// More about it, for people; may be empty.
    pub detail: &'a str,
}

/// One line at the end of a tunnel.
pub fn log_tunnel_end(end: &TunnelEndLine<'_>) {
    tracing::info!(
        target: "latchkey::tunnel",
        instance = ?end.instance,
        session = end.session,
        agent = %Address(end.agent),
        seconds = end.lived.as_secs_f64(),
        channels = end.channels,
        bytes_in = end.bytes_in,
        bytes_out = end.bytes_out,
        reason = end.reason.text(),
        detail = ?end.detail,
        "tunnel ended"
    );
}

/// An address that may not be known.
struct Address(Option<IpAddr>);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.to_canonical().fmt(f),
            None => f.write_str("unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn captured(filter_text: &str, log: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer =
            tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(filter(Some(filter_text)).unwrap()).with(layer);
        tracing::subscriber::with_default(subscriber, log);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn end() -> VisitorEnd<'static> {
        VisitorEnd {
            instance: "homes/lake-house",
            hostname: "lake\nhouse.example.com",
            visitor: Some("::ffff:192.0.2.7".parse().unwrap()),
            bytes_in: 517,
            bytes_out: 4096,
            lived: Duration::from_millis(1500),
            by: VisitorOutcome::Instance,
        }
    }

    #[test]
    fn one_line_tells_who_what_bytes_and_why() {
        let text = captured("info", || log_visitor_end(&end()));
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["target"], "latchkey::visitor");
        assert_eq!(line["instance"], "homes/lake-house");
        assert_eq!(line["visitor"], "192.0.2.7");
        assert_eq!(line["bytes_in"], 517);
        assert_eq!(line["bytes_out"], 4096);
        assert_eq!(line["seconds"], 1.5);
        assert_eq!(line["by"], "instance");
    }

    #[test]
    fn targets_can_be_silenced() {
        assert_eq!(captured("info,latchkey::visitor=warn", || log_visitor_end(&end())), "");
        let refused = || log_visitor_refused(None, Some("x.example"), None, RefusalReason::UnknownHost);
        assert!(captured("latchkey=info", refused).contains("unknown_host"));
    }

    #[test]
    fn a_broken_filter_is_named() {
        let error = filter(Some("latchkey=loud")).unwrap_err().to_string();
        assert!(error.contains("latchkey=loud"), "{error}");
        assert!(filter(Some("  ")).is_ok());
        assert!("xml".parse::<LogFormat>().unwrap_err().contains("json"));
    }
}
