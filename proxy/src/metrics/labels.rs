//! The labels: enums, so that their number is bounded.

use std::{fmt, hash::Hash};

/// A label with a fixed set of values.
pub trait Label: Copy + fmt::Debug + Eq + Hash + Send + Sync + 'static {
    /// The name of the label.
    const KEY: &'static str;
    /// Every value, in the order of [`Label::index`].
    const ALL: &'static [Self];
    /// The place in [`Label::ALL`].
    fn index(self) -> usize;
    /// The value as it is shown, in metrics and in logs.
    fn text(self) -> &'static str;
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident as $key:literal { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl Label for $name {
            const KEY: &'static str = $key;
            const ALL: &'static [Self] = &[$(Self::$variant,)+];
            fn index(self) -> usize {
                self as usize
            }
            fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.text())
            }
        }
    };
}

label! {
    /// Why a connection was turned away before it reached a tunnel.
    RefusalReason as "reason" {
        /// Neither TLS nor a token.
        NotTls = "not_tls",
        /// A ClientHello without a hostname.
        NoHostname = "no_hostname",
        /// The first bytes took too long.
        HelloTimeout = "hello_timeout",
        /// A PROXY header that is missing, broken or from an address that is not trusted.
        ProxyHeader = "proxy_header",
        /// No route has this hostname.
        UnknownHost = "unknown_host",
        /// Remote access is off.
        Disabled = "disabled",
        /// A version block is in force.
        Blocked = "blocked",
        /// The route has a restriction this build does not know.
        NotUnderstood = "not_understood",
        /// The visitor's network is not let in.
        Network = "network",
        /// Too many new connections from this client.
        ClientRate = "client_rate",
        /// Too many connections of this client at once.
        ClientConnections = "client_connections",
        /// The instance has as many connections as it may.
        InstanceConnections = "instance_connections",
        /// The proxy has as many handshakes under way as it may.
        Handshakes = "handshakes",
        /// Certificate validations come too often.
        AcmeRate = "acme_rate",
        /// No tunnel is open.
        NoTunnel = "no_tunnel",
        /// Waited for a tunnel that did not come back.
        ParkedTimeout = "parked_timeout",
        /// There is no room to wait.
        ParkingFull = "parking_full",
        /// The visitor went away first.
        VisitorGone = "visitor_gone",
        /// The session API has as many connections as it may.
        ApiConnections = "api_connections",
        /// Too many handshakes with the session API from one address.
        ApiRate = "api_rate",
    }
}

label! {
    /// Who or what ended a visitor's connection.
    VisitorOutcome as "by" {
        /// The visitor closed it.
        Visitor = "visitor",
        /// The instance closed it.
        Instance = "instance",
        /// An error on the visitor's side.
        VisitorError = "visitor_error",
        /// The tunnel under it ended.
        Tunnel = "tunnel",
        /// Nothing was said for too long.
        Idle = "idle",
        /// It held more than its share of memory.
        Buffers = "buffers",
    }
}

label! {
    /// Which way bytes went.
    Direction as "direction" {
        /// From visitors to instances.
        FromVisitor = "from_visitor",
        /// From instances to visitors.
        ToVisitor = "to_visitor",
    }
}

label! {
    /// How an attempt to open a tunnel ended.
    TunnelOpenResult as "result" {
        /// It is open.
        Opened = "opened",
        /// It is open, and an older one of the instance made way.
        Replaced = "replaced",
        /// No key opens the token.
        BadToken = "bad_token",
        /// The token has expired.
        Expired = "expired",
        /// The token's instance is not in the table.
        UnknownInstance = "unknown_instance",
        /// The token was made for an earlier generation, or for a key that is no longer listed.
        OldKey = "old_key",
        /// Remote access is off.
        Disabled = "disabled",
        /// A version block is in force.
        Blocked = "blocked",
        /// The route has a restriction this build does not know.
        NotUnderstood = "not_understood",
        /// The challenge was not answered rightly.
        BadAnswer = "bad_answer",
        /// Token or answer took too long.
        Timeout = "timeout",
        /// Every tunnel the instance may have is alive.
        Conflict = "conflict",
        /// The proxy has as many handshakes under way as it may.
        Overloaded = "overloaded",
        /// The agent went away.
        Gone = "gone",
        /// The proxy stops.
        Draining = "draining",
    }
}

label! {
    /// Why a tunnel ended.
    TunnelEndReason as "reason" {
        /// The agent closed it.
        Agent = "agent",
        /// An error of the connection.
        Connection = "connection",
        /// The agent did not answer pings.
        Silent = "silent",
        /// The agent sent what the protocol does not allow.
        Protocol = "protocol",
        /// A newer session of the instance took its place.
        Replaced = "replaced",
        /// The route is gone.
        RouteGone = "route_gone",
        /// Remote access was turned off.
        Disabled = "disabled",
        /// A version block came into force.
        Blocked = "blocked",
        /// The agent's key is no longer listed.
        OldKey = "old_key",
        /// The route got a restriction this build does not know.
        NotUnderstood = "not_understood",
        /// It moved away in a drain.
        Drained = "drained",
        /// The proxy stopped before it could move.
        Shutdown = "shutdown",
    }
}

label! {
    /// Why a channel was reset.
    ResetCause as "cause" {
        /// More bytes wait for its reader than it may hold.
        ChannelFull = "channel_full",
        /// The visitor's connection failed.
        VisitorError = "visitor_error",
        /// Nothing was said for too long.
        Idle = "idle",
        /// The tunnel has as many channels as it may.
        TooManyChannels = "too_many_channels",
        /// The tunnel ended.
        TunnelEnded = "tunnel_ended",
    }
}

#[cfg(feature = "operator")]
label! {
    /// What came of an update of the table.
    UpdateResult as "result" {
        /// It is in force.
        Applied = "applied",
        /// It makes no sense here; the last good table stays.
        Refused = "refused",
    }
}

label! {
    /// The status of an answer of the session API.
    Answer as "code" {
        /// 200
        Ok = "200",
        /// 400
        BadRequest = "400",
        /// 401
        Unauthorized = "401",
        /// 403
        Forbidden = "403",
        /// 404
        NotFound = "404",
        /// 405
        MethodNotAllowed = "405",
        /// 408
        Timeout = "408",
        /// 409
        Conflict = "409",
        /// 413
        TooLarge = "413",
        /// 422
        Unprocessable = "422",
        /// 429
        TooManyRequests = "429",
        /// 500
        Internal = "500",
        /// 501
        NotImplemented = "501",
        /// 503
        Unavailable = "503",
        /// Any other.
        Other = "other",
    }
}

impl Answer {
    /// The label of a status.
    pub fn of(status: u16) -> Self {
        match status {
            200 => Self::Ok,
            400 => Self::BadRequest,
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            404 => Self::NotFound,
            405 => Self::MethodNotAllowed,
            408 => Self::Timeout,
            409 => Self::Conflict,
            413 => Self::TooLarge,
            422 => Self::Unprocessable,
            429 => Self::TooManyRequests,
            500 => Self::Internal,
            501 => Self::NotImplemented,
            503 => Self::Unavailable,
            _ => Self::Other,
        }
    }
}
