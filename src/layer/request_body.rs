//! Whether a layer reads the bodies of requests before it submits them.

use std::convert::Infallible;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use http::Request;
use http_body::Body;

use self::sealed::Sealed;
use crate::body::{BodyRead, BoxError, Buffered, ReadBody, ReadError, RequestReading};
use crate::budget::Budget;

/// Whether a layer reads the bodies of requests before it submits them: [`Unread`] or [`ReadBody`].
pub trait RequestBody<Req>: Clone + Send + Sync + Sealed + 'static {
    /// The request that the inner service gets.
    type Request;
    /// Reads the body of a request.
    #[doc(hidden)]
    type Reading: Future<Output = Result<Self::Request, ReadError>> + Send + 'static;

    /// The request with its body unread.
    #[doc(hidden)]
    fn unread(request: Req) -> Self::Request;

    /// Reads the body, if there is one to read. `look` sees the request as it is when its body was read.
    #[doc(hidden)]
    fn read<H>(
        &self,
        request: Req,
        look: impl FnOnce(&Req) -> H,
        budget: &Budget,
        deadline: Option<Instant>,
    ) -> Result<(Self::Reading, H), Self::Request>;

    /// Whether all of the body may have arrived with the head: it is polled before the pool is asked if it would reject
    /// the request.
    #[doc(hidden)]
    fn is_brief(reading: &Self::Reading) -> bool;
}

/// Bodies are not read: the handler gets them as they arrive. This is the default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unread(());

impl Unread {
    pub(super) const NEW: Self = Self(());
}

/// There is none: an unread body is not being read.
#[doc(hidden)]
#[derive(Debug)]
pub struct NoReading<Req>(Infallible, PhantomData<fn() -> Req>);

impl<Req> Future for NoReading<Req> {
    type Output = Result<Req, ReadError>;

    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.0 {}
    }
}

impl<Req: 'static> RequestBody<Req> for Unread {
    type Request = Req;
    type Reading = NoReading<Req>;

    fn unread(request: Req) -> Req {
        request
    }

    fn read<H>(
        &self,
        request: Req,
        _look: impl FnOnce(&Req) -> H,
        _budget: &Budget,
        _deadline: Option<Instant>,
    ) -> Result<(NoReading<Req>, H), Req> {
        Err(request)
    }

    fn is_brief(reading: &NoReading<Req>) -> bool {
        match reading.0 {}
    }
}

impl<B> RequestBody<Request<B>> for ReadBody
where
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Request = Request<Buffered<B>>;
    type Reading = RequestReading<B>;

    fn unread(request: Request<B>) -> Self::Request {
        request.map(Buffered::unread)
    }

    fn read<H>(
        &self,
        mut request: Request<B>,
        look: impl FnOnce(&Request<B>) -> H,
        budget: &Budget,
        deadline: Option<Instant>,
    ) -> Result<(RequestReading<B>, H), Self::Request> {
        if request.body().is_end_stream() {
            return Err(Self::unread(request));
        }
        request.extensions_mut().insert(BodyRead);
        let seen = look(&request);
        Ok((RequestReading::of_marked(self, request, Some(budget), deadline), seen))
    }

    fn is_brief(reading: &RequestReading<B>) -> bool {
        reading.is_brief()
    }
}

mod sealed {
    pub trait Sealed {}

    impl Sealed for super::Unread {}
    impl Sealed for crate::body::ReadBody {}
}
