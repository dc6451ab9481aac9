//! The proxies' `ServiceAccount`: a name without rights, and without a token.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::labels::metadata;
use crate::names::Names;

/// The `ServiceAccount`.
pub(crate) fn service_account(names: &Names) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata(names, names.proxies()),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}
