//! Where the binary's routes and keys come from: nowhere (whatever a valid token names is served), a file, or an
//! operator.

use std::sync::Arc;

use tokio::runtime::Handle;

#[cfg(feature = "operator")]
use crate::operator_link::{LinkMetrics, OperatorLink};
use crate::{
    app::AppError,
    door::Door,
    fernet_keys::{FernetKeyRing, KeyFileError},
    metrics::Metrics,
    proxy::ApiParts,
    routes::{FileWatch, Live, RoutesFile},
    settings::Settings,
    view::View,
};

/// Where routes come from.
pub(crate) enum Source {
    Nowhere,
    File(RoutesFile),
    #[cfg(feature = "operator")]
    Operator(Box<OperatorLink>),
}

impl Source {
    /// Opens what the settings name.
    pub(crate) async fn open(
        settings: &Settings,
        #[cfg_attr(
            not(feature = "operator"),
            expect(unused_variables, reason = "only an operator has some")
        )]
        metrics: &mut Metrics,
    ) -> Result<Self, AppError> {
        #[cfg(feature = "operator")]
        if let Some(link) = OperatorLink::prepare(&settings.operator, || LinkMetrics::register(metrics))? {
            return Ok(Self::Operator(Box::new(link)));
        }
        match &settings.routes {
            Some(file) => Ok(Self::File(RoutesFile::open(file, FileWatch::default()).await?)),
            None => Ok(Self::Nowhere),
        }
    }

    /// Where tables go.
    pub(crate) fn live(&self) -> Option<Arc<Live>> {
        match self {
            Self::Nowhere => None,
            Self::File(file) => Some(file.live().clone()),
            #[cfg(feature = "operator")]
            Self::Operator(link) => Some(link.live().clone()),
        }
    }

    /// What seals and opens tokens.
    pub(crate) fn keys(&self, settings: &Settings) -> Result<Arc<FernetKeyRing>, KeyFileError> {
        let keys = match (self, &settings.fernet_keys) {
            #[cfg(feature = "operator")]
            (Self::Operator(_), _) => FernetKeyRing::until_an_operator_comes()?,
            (_, Some(file)) => FernetKeyRing::from_file(file)?,
            (_, None) => FernetKeyRing::random()?,
        };
        Ok(Arc::new(keys))
    }

    /// What the session API is made of.
    pub(crate) fn api(&self, settings: &Settings) -> ApiParts {
        let api = ApiParts {
            tunnel_address: settings.tunnel_address.clone(),
            ..ApiParts::new(settings.api_tls.clone())
        };
        match self {
            Self::Nowhere | Self::File(_) => api,
            #[cfg(feature = "operator")]
            Self::Operator(link) => ApiParts { enrolment: link.enrolment(), reports: link.reports(), ..api },
        }
    }

    /// What the admin listener shows.
    pub(crate) fn view(&self, door: Arc<Door>) -> View {
        let view = View::new(door);
        match self {
            Self::Nowhere => view,
            Self::File(file) => view.with_file(file.state()),
            #[cfg(feature = "operator")]
            Self::Operator(link) => view.with_operator(link.view()),
        }
    }

    /// Begins to follow what the proxy does.
    #[cfg_attr(
        not(feature = "operator"),
        expect(unused_variables, clippy::unused_self, reason = "an operator does")
    )]
    pub(crate) fn start(&mut self, door: &Arc<Door>, control: &Handle) {
        #[cfg(feature = "operator")]
        if let Self::Operator(link) = self {
            link.start(door.clone(), control);
        }
    }

    /// Waits until there is somebody to serve. A proxy that knows no routes yet accepts nobody: an agent that is turned
    /// away as unknown comes back minutes later, one that cannot connect at once.
    #[cfg_attr(not(feature = "operator"), expect(clippy::unused_async, reason = "an operator may be late"))]
    pub(crate) async fn is_there(&self) {
        #[cfg(feature = "operator")]
        if let Self::Operator(link) = self {
            link.has_table().await;
        }
    }
}
