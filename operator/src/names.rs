//! What the operator's own objects are called: everything of an installation has its name inside, so that two of them fit
//! into one namespace.

use std::fmt;

/// Who writes: the field manager of every server-side apply.
pub const FIELD_MANAGER: &str = "latchkey-operator";
/// Who writes statuses, before the installation's name: see [`Names::status_manager`].
pub const STATUS_MANAGERS: &str = "latchkey-operator-status/";
/// Label with the installation's name, on everything that belongs to it.
pub const INSTALLATION_LABEL: &str = "latchkey.dev/installation";
/// Port of the operators' gRPC, which proxies dial.
pub const LINK_PORT: u16 = 8444;

/// The names of an installation's objects in the operator's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Where the operator and the proxies are.
    pub namespace: String,
    /// The installation: `default`, mostly.
    pub installation: String,
}

impl Names {
    fn of(&self, what: impl fmt::Display) -> String {
        format!("latchkey-{}-{what}", self.installation)
    }

    /// `ConfigMap` with the installation's settings, key `installation.yaml`. Somebody else writes it.
    pub fn settings(&self) -> String {
        format!("latchkey-{}", self.installation)
    }

    /// `ConfigMap` with released labels. The operator writes it.
    pub fn released(&self) -> String {
        self.of("released-labels")
    }

    /// `Secret` with the seed: to be backed up, since names come from it.
    pub fn seed(&self) -> String {
        self.of("seed")
    }

    /// `Secret` with the installation's certificate authorities, the present one and the next.
    pub fn authority(&self) -> String {
        self.of("authority")
    }

    /// `Secret` with the keys that seal tokens.
    pub fn token_keys(&self) -> String {
        self.of("token-keys")
    }

    /// `Secret` with what proxies need, mounted into them: their certificate for the link, that of the session API, and
    /// whom to trust.
    pub fn proxy_certificates(&self) -> String {
        self.of("proxy-certificates")
    }

    /// The leader's `Lease`.
    pub fn lease(&self) -> String {
        self.of("operator")
    }

    /// Headless `Service` of the operator's pods, which proxies dial. Installed with the operator.
    pub fn operator_service(&self) -> String {
        self.of("operator")
    }

    /// The field manager of statuses. Another one than for the rest, so that neither takes the other's fields away; and one
    /// for each installation, so that one that serves an object no more takes back what is its own, and nothing that the
    /// next one has told.
    pub fn status_manager(&self) -> String {
        format!("{STATUS_MANAGERS}{}", self.installation)
    }

    /// The proxies' `StatefulSet`, and everything that goes with it under the same name.
    pub fn proxies(&self) -> String {
        self.of("proxy")
    }

    /// Headless `Service` of the proxies' pods.
    pub fn proxy_peers(&self) -> String {
        self.of("proxy-peers")
    }
}
