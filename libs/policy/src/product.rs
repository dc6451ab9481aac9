//! The product an instance runs, which decides how its versions are ordered.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::version::VersionScheme;

/// Longest product name.
pub const MAX_PRODUCT_LENGTH: usize = 64;

/// The product meant when nobody names one.
pub const DEFAULT_PRODUCT: &str = "home-assistant-core";

/// What an instance runs, e.g. `home-assistant-core`. Cloning shares the text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Product(Arc<str>);

/// Why a text is no product name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "product {text:?} is not a product name: use 1 to {MAX_PRODUCT_LENGTH} of a-z, 0-9, '.', '_' and '-', \
     beginning with a letter or digit, e.g. {DEFAULT_PRODUCT:?}"
)]
pub struct ProductError {
    text: String,
}

impl Product {
    /// The name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How versions of this product are ordered: Home Assistant's own products and `ESPHome` are calendar
    /// versioned, everything else is read like semantic versions.
    pub fn scheme(&self) -> VersionScheme {
        let name = self.as_str();
        if name == "esphome" || name == "home-assistant" || name.starts_with("home-assistant-") {
            VersionScheme::Calendar
        } else {
            VersionScheme::Semantic
        }
    }
}

impl Default for Product {
    fn default() -> Self {
        Self(DEFAULT_PRODUCT.into())
    }
}

impl FromStr for Product {
    type Err = ProductError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        let begins_well = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if begins_well && text.len() <= MAX_PRODUCT_LENGTH && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(ProductError { text: text.chars().take(MAX_PRODUCT_LENGTH).collect() })
        }
    }
}

impl fmt::Display for Product {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl serde::Serialize for Product {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for Product {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_product_decides_the_scheme() {
        for name in ["home-assistant-core", "home-assistant-supervisor", "home-assistant", "esphome"] {
            assert_eq!(name.parse::<Product>().unwrap().scheme(), VersionScheme::Calendar, "{name}");
        }
        for name in ["grafana", "home-assistantish", "my.app_2"] {
            assert_eq!(name.parse::<Product>().unwrap().scheme(), VersionScheme::Semantic, "{name}");
        }
    }

    #[test]
    fn names_are_bounded_and_plain() {
        for bad in ["", "-x", "Home", "a b", "a\n", &"x".repeat(65)] {
            assert!(bad.parse::<Product>().is_err(), "{bad:?}");
        }
        assert!("x".repeat(64).parse::<Product>().is_ok());
    }

    #[test]
    fn a_product_is_a_plain_string_in_json() {
        let product: Product = serde_json::from_str("\"grafana\"").unwrap();
        assert_eq!(serde_json::to_string(&product).unwrap(), "\"grafana\"");
        assert!(serde_json::from_str::<Product>("\"no spaces\"").is_err());
    }
}
