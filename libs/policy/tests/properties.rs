//! What holds for every version and range, not only for the ones somebody thought of.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use policy::{ProductVersion, ReportedVersion, VersionRange, VersionScheme};
use proptest::prelude::*;

/// Texts of versions, from small numbers so that equal and neighbouring versions are common.
fn text_of(scheme: VersionScheme) -> BoxedStrategy<String> {
    let release = proptest::collection::vec(0_u64..4, 1..5)
        .prop_map(|numbers| numbers.iter().map(u64::to_string).collect::<Vec<_>>().join("."));
    let tail = match scheme {
        VersionScheme::Calendar => {
            "(|[._-]?(dev|d|alpha|a|beta|B|rc|c|pre|post|rev)[.-]?[0-2]?([.]dev[0-2])?)"
        }
        VersionScheme::Semantic => {
            "(|-([0-2]|[a-b]{1,2}[0-2]?|rc)([.]([0-2]|[a-b]{1,2}[0-2]?)){0,2}|rc[0-2])"
        }
    };
    let build = "(|[+]b[0-9])";
    (release, tail, build).prop_map(|(release, tail, build)| format!("{release}{tail}{build}")).boxed()
}

fn version_of(scheme: VersionScheme) -> BoxedStrategy<ProductVersion> {
    text_of(scheme)
        .prop_filter_map("not every text is a version", move |text| ProductVersion::parse(&text, scheme).ok())
        .boxed()
}

fn scheme() -> impl Strategy<Value = VersionScheme> {
    prop_oneof![Just(VersionScheme::Calendar), Just(VersionScheme::Semantic)]
}

fn any_version() -> impl Strategy<Value = ProductVersion> {
    scheme().prop_flat_map(version_of)
}

fn three_versions() -> impl Strategy<Value = (ProductVersion, ProductVersion, ProductVersion)> {
    scheme().prop_flat_map(|scheme| (version_of(scheme), version_of(scheme), version_of(scheme)))
}

fn hash_of(version: &ProductVersion) -> u64 {
    let mut hasher = DefaultHasher::new();
    version.hash(&mut hasher);
    hasher.finish()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_order_is_total((a, b, c) in three_versions()) {
        prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
        prop_assert_eq!(a == b, a.cmp(&b).is_eq());
        if a <= b && b <= c {
            prop_assert!(a <= c);
        }
        if a == b {
            prop_assert_eq!(hash_of(&a), hash_of(&b));
            prop_assert_eq!(a.cmp(&c), b.cmp(&c));
        }
    }

    #[test]
    fn a_version_shows_as_written_and_reads_back(version in any_version()) {
        let again = ProductVersion::parse(&version.to_string(), version.scheme()).unwrap();
        prop_assert_eq!(again.as_str(), version.as_str());
        prop_assert_eq!(again, version);
    }

    #[test]
    fn any_text_is_read_without_panic_and_bounded(text in any::<String>(), scheme in scheme()) {
        let read = ReportedVersion::read(&text, scheme);
        prop_assert!(read.text().unwrap_or_default().chars().count() <= 65);
        let _range = VersionRange::parse(&text, scheme);
    }

    #[test]
    fn a_range_is_its_comparisons((low, high, version) in three_versions(), strict in any::<bool>()) {
        let (low, high) = if low <= high { (low, high) } else { (high, low) };
        let text = if strict { format!(">{low}, <{high}") } else { format!(">={low},<={high}") };
        match VersionRange::parse(&text, version.scheme()) {
            Ok(range) => {
                let inside =
                    if strict { low < version && version < high } else { low <= version && version <= high };
                prop_assert_eq!(range.contains(&version), inside);
                let again = VersionRange::parse(&range.to_string(), version.scheme()).unwrap();
                prop_assert_eq!(again, range);
            }
            Err(_) => prop_assert!(strict && low == high),
        }
    }

    #[test]
    fn below_and_from_are_opposites((bound, version, _) in three_versions()) {
        let scheme = version.scheme();
        let below = VersionRange::parse(&format!("<{bound}"), scheme).unwrap();
        let from = VersionRange::parse(&format!(">={bound}"), scheme).unwrap();
        let exact = VersionRange::parse(bound.as_str(), scheme).unwrap();
        prop_assert_ne!(below.contains(&version), from.contains(&version));
        prop_assert_eq!(exact.contains(&version), version == bound);
    }
}
