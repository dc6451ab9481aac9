//! Which installation serves an instance.

use resources::{Observed, RemoteInstance};
use route_table::InstanceId;

use crate::inventory::Settings;

/// Does this installation serve an instance of this namespace that asks for `asked`?
///
/// | asks for | this installation | namespace | served |
/// |---|---|---|---|
/// | its name | any | among those it serves, or it serves all | yes |
/// | nothing | the default one | among those it serves, or it serves all | yes |
/// | nothing | not the default one | any | no |
/// | another name | any | any | no |
/// | its name, or nothing | any | not among those it serves | no |
///
/// Whoever is not served gets no route and no status: that is for the installation that serves it.
pub fn serves(settings: &Settings, namespace: &str, asked: &str) -> bool {
    let meant = if asked.is_empty() { settings.spec.default } else { asked == settings.name };
    let namespaces = &settings.spec.namespaces;
    meant && (namespaces.is_empty() || namespaces.iter().any(|served| served == namespace))
}

/// The same of an object as it stands there.
pub(crate) fn serves_object(settings: &Settings, id: &InstanceId, object: &Observed<RemoteInstance>) -> bool {
    let asked = match object {
        Observed::Readable(object) => object.spec.installation.as_str(),
        Observed::Unreadable(nonsense) => nonsense.installation.as_deref().unwrap_or_default(),
    };
    serves(settings, id.as_str().split('/').next().unwrap_or_default(), asked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::settings;

    #[test]
    fn every_row() {
        // (asked, default, namespaces, served)
        for (asked, default, namespaces, served) in [
            ("default", true, &[][..], true),
            ("default", false, &["homes"][..], true),
            ("", true, &[], true),
            ("", true, &["homes", "farms"], true),
            ("", false, &[], false),
            ("other", true, &[], false),
            ("default", true, &["farms"], false),
            ("", true, &["farms"], false),
        ] {
            let mut settings = settings();
            settings.spec.default = default;
            settings.spec.namespaces = namespaces.iter().map(ToString::to_string).collect();
            assert_eq!(serves(&settings, "homes", asked), served, "{asked:?} {default} {namespaces:?}");
        }
    }
}
