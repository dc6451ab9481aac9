//! Product versions, version ranges, and the one decision about who may be reached.
//!
//! An instance reports the version it runs. A [`VersionBlock`] names versions with a known hole. [`admit`] puts
//! the two together, and everybody who must know (planner, proxy, command line) asks this one function.
//!
//! ```
//! use policy::{Product, ReportedVersion};
//!
//! let product: Product = "home-assistant-core".parse()?;
//! let beta = ReportedVersion::read("2023.9.0b3", product.scheme());
//! let release = ReportedVersion::read("2023.9.0", product.scheme());
//! assert!(beta.known() < release.known());
//! assert_eq!(ReportedVersion::read("latest", product.scheme()).known(), None);
//! # Ok::<(), policy::ProductError>(())
//! ```

mod admit;
mod calendar;
mod product;
mod range;
mod scan;
mod semantic;
mod version;

pub use admit::{Admission, BlockAction, BlockedBy, UnknownVersion, VersionBlock, admit};
pub use product::{DEFAULT_PRODUCT, MAX_PRODUCT_LENGTH, Product, ProductError};
pub use range::{MAX_COMPARISONS, MAX_RANGE_LENGTH, RangeError, VersionRange};
pub use version::{MAX_VERSION_LENGTH, ProductVersion, ReportedVersion, VersionError, VersionScheme};
