//! `LoadReport`: a layer that adds the report to every response.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{HeaderName, Request, Response};
use http_body::Body;
use pin_project::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::body::ReportBody;
use super::reporter::{Format, HEADER, Reporter, TRAILER};
use crate::body::is_grpc;
use crate::error::UnknownPool;
use crate::inner_service::inner_service;
use crate::load::Scale;
use crate::pools::Pools;
use crate::workload::PoolName;

/// Adds the load of the pools to every response, for balancers. The [module](super) describes the report.
#[derive(Clone, Debug)]
pub struct LoadReport {
    reporter: Arc<Reporter>,
}

/// A service whose responses have a load report; made by [`LoadReport`].
#[derive(Clone, Debug)]
pub struct LoadReportService<S> {
    inner: S,
    reporter: Arc<Reporter>,
}

/// The future of [`LoadReportService`].
#[pin_project]
pub struct LoadReportFuture<F> {
    #[pin]
    future: F,
    format: Format,
    reporter: Arc<Reporter>,
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

impl LoadReport {
    /// Reports the load of the process: that of the pools that `performance.scale_by` names, or of all.
    #[must_use]
    pub fn new(pools: &Pools) -> Self {
        Self { reporter: Arc::new(Reporter::new(pools, pools.scale().clone(), false)) }
    }

    /// Reports the load of these pools alone.
    ///
    /// # Errors
    ///
    /// If one of the pools does not exist. [Disabled](Pools::disabled) pools accept every name.
    pub fn by<N: PoolName>(self, names: impl IntoIterator<Item = N>) -> Result<Self, UnknownPool> {
        let pools = self.reporter.pools();
        if pools.is_disabled() {
            return Ok(self);
        }
        let by: Result<_, _> = names.into_iter().map(|name| Ok(pools.get(name)?.name().clone())).collect();
        let scale = Scale { by: by?, ..pools.scale().clone() };
        Ok(Self { reporter: Arc::new(Reporter::new(pools, scale, self.reporter.is_named())) })
    }

    /// Reports the load of each pool by its name too: `named_metrics.NAME`. Without this, no response shows the names of
    /// the pools.
    #[must_use]
    pub fn named_metrics(self) -> Self {
        let (pools, scale) = (self.reporter.pools(), self.reporter.scale().clone());
        Self { reporter: Arc::new(Reporter::new(pools, scale, true)) }
    }
}

impl<S> Layer<S> for LoadReport {
    type Service = LoadReportService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        LoadReportService { inner, reporter: self.reporter.clone() }
    }
}

impl<S> LoadReportService<S> {
    inner_service!();
}

impl<S, B, RB> Service<Request<B>> for LoadReportService<S>
where
    S: Service<Request<B>, Response = Response<RB>>,
    RB: Body,
{
    type Response = Response<ReportBody<RB>>;
    type Error = S::Error;
    type Future = LoadReportFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let headers = request.headers();
        let format = if is_grpc(headers) { Format::Grpc } else { Format::asked(headers) };
        LoadReportFuture { future: self.inner.call(request), format, reporter: self.reporter.clone() }
    }
}

impl<F, RB, E> Future for LoadReportFuture<F>
where
    F: Future<Output = Result<Response<RB>, E>>,
    RB: Body,
{
    type Output = Result<Response<ReportBody<RB>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.future.poll(cx))?;
        let in_trailers = *this.format == Format::Grpc && !response.headers().contains_key(GRPC_STATUS);
        if !in_trailers {
            // The headers of a gRPC response with a status in them are its trailers.
            let name = if *this.format == Format::Grpc { TRAILER } else { HEADER };
            response.headers_mut().insert(name, this.reporter.value(*this.format));
        }
        let reporter = in_trailers.then(|| this.reporter.clone());
        Poll::Ready(Ok(response.map(|body| ReportBody::new(body, reporter))))
    }
}

impl<F> fmt::Debug for LoadReportFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadReportFuture").finish_non_exhaustive()
    }
}
