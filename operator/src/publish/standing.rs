//! What every stream looks at to find out what to say next. It is replaced as a whole; looking blocks nobody.

use std::fmt;
use std::sync::Arc;

use operator_link::wire;
use zeroize::Zeroizing;

use super::history::History;

/// What there is to be told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standing {
    /// The term in which we lead, if we do.
    pub(crate) term: Option<u64>,
    pub(crate) keys: Option<Arc<TokenKeys>>,
    pub(crate) history: Arc<History>,
}

/// What seals and opens tokens, the newest first.
#[derive(PartialEq, Eq)]
pub(crate) struct TokenKeys(pub(crate) Vec<Zeroizing<[u8; 32]>>);

impl TokenKeys {
    pub(crate) fn message(&self) -> wire::TokenKeys {
        wire::TokenKeys { keys: self.0.iter().map(|key| key.to_vec()).collect() }
    }
}

impl fmt::Debug for TokenKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "TokenKeys({})", self.0.len())
    }
}
