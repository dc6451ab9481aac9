//! Where the proxy's routes come from. Whatever the source, the rest of the proxy sees one table that is swapped
//! as a whole.

mod file;
mod live;

use std::sync::Arc;

use route_table::RouteTable;

pub use file::{FileProblem, FileState, FileWatch, RoutesFile, RoutesFileError};
pub use live::{Live, LiveRoutes};

/// Something that knows the present table and tells when there is another.
pub trait RouteSource: Send + Sync {
    /// The table in force. Cheap enough to ask for every visitor.
    fn current(&self) -> Arc<RouteTable>;

    /// Returns once a table was put in force that this source's holder was not told of yet. Several changes in a
    /// row may be told as one. Dropping the future loses nothing.
    fn changed(&mut self) -> impl Future<Output = ()> + Send;
}
