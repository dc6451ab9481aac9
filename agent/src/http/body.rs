//! Bodies in both directions: streamed, never gathered.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

/// A visitor's body on its way to the instance; counts its steps, so that a long upload is no hanging instance.
#[derive(Debug, Default)]
pub struct Upload {
    body: Option<Incoming>,
    steps: Arc<AtomicU64>,
}

impl Upload {
    /// Of a request.
    pub fn of(body: Incoming) -> Self {
        Self { body: Some(body).filter(|body| !body.is_end_stream()), steps: Arc::default() }
    }

    /// Rises with each piece sent.
    pub fn steps(&self) -> Arc<AtomicU64> {
        self.steps.clone()
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = std::task::ready!(Pin::new(body).poll_frame(cx));
        self.steps.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// What a visitor gets: the instance's body, or a page of ours.
#[derive(Debug)]
pub struct Answer {
    kind: Kind,
    /// The request counts as under way until its answer is delivered.
    _under_way: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
enum Kind {
    Stream(Incoming),
    Page(Option<Bytes>),
}

impl Answer {
    /// The instance's.
    pub fn stream(body: Incoming, under_way: OwnedSemaphorePermit) -> Self {
        Self { kind: Kind::Stream(body), _under_way: Some(under_way) }
    }

    /// Nothing.
    pub fn empty() -> Self {
        Self { kind: Kind::Page(None), _under_way: None }
    }
}

impl From<Bytes> for Answer {
    fn from(page: Bytes) -> Self {
        Self { kind: Kind::Page(Some(page)), _under_way: None }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.kind {
            Kind::Stream(body) => Pin::new(body).poll_frame(cx),
            Kind::Page(page) => Poll::Ready(page.take().map(|page| Ok(Frame::data(page)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Stream(body) => body.is_end_stream(),
            Kind::Page(page) => page.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Stream(body) => body.size_hint(),
            Kind::Page(page) => SizeHint::with_exact(page.as_ref().map_or(0, Bytes::len) as u64),
        }
    }
}
