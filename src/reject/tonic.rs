//! Rejections as gRPC statuses, so that methods of a tonic service return them with `?`.

use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::reason::{GrpcCode, answer_to, reason_of};
use super::retry_after::{GRPC_PUSHBACK, millis};
use crate::error::{
    BatchError, Cancelled, MakeError, ModelError, Reason, Rejection, SlotError, TaskError, UnknownPool,
};

/// The status that a [`PoolLayer`](crate::PoolLayer) would answer with.
///
/// ```
/// use tonic::{Request, Response, Status};
/// use tower_offload::{Cpu, Pools};
///
/// async fn factor(pools: &Pools, request: Request<u64>) -> Result<Response<u64>, Status> {
///     let number = request.into_inner();
///     let factor = pools.run_in_pool(Cpu, move || (2..=number).find(|factor| number % factor == 0)).await?;
///     factor.map(Response::new).ok_or_else(|| Status::invalid_argument("no prime factors"))
/// }
/// ```
#[cfg_attr(docsrs, doc(cfg(feature = "tonic")))]
impl From<Rejection> for Status {
    fn from(rejection: Rejection) -> Self {
        let mut metadata = MetadataMap::new();
        if let Some(wait) = rejection.retry_after() {
            metadata.insert(GRPC_PUSHBACK, millis(wait).into());
        }
        Self::with_metadata(code(answer_to(rejection.reason()).1), rejection.to_string(), metadata)
    }
}

/// `INTERNAL`.
#[cfg_attr(docsrs, doc(cfg(feature = "tonic")))]
impl From<UnknownPool> for Status {
    fn from(unknown: UnknownPool) -> Self {
        Rejection::new(unknown.name().clone(), Reason::UnknownPool, None).into()
    }
}

/// The status of the inner error. A panic is `INTERNAL`, without its message.
#[cfg_attr(docsrs, doc(cfg(feature = "tonic")))]
impl From<TaskError> for Status {
    fn from(error: TaskError) -> Self {
        match error {
            TaskError::Rejected(rejection) | TaskError::CutOff(rejection) => rejection.into(),
            TaskError::Panicked(_) => Self::internal("the task panicked"),
            TaskError::UnknownPool(unknown) => unknown.into(),
        }
    }
}

/// A passed deadline is `DEADLINE_EXCEEDED`, anything else `INTERNAL`.
#[cfg_attr(docsrs, doc(cfg(feature = "tonic")))]
impl From<Cancelled> for Status {
    fn from(cancelled: Cancelled) -> Self {
        Self::new(code(answer_to(reason_of(cancelled)).1), cancelled.to_string())
    }
}

/// A value that could not be made is `UNAVAILABLE`, without the error. A wrong use of the slots is `INTERNAL`, and says what
/// to use.
#[cfg_attr(docsrs, doc(cfg(feature = "tonic")))]
impl From<SlotError> for Status {
    fn from(error: SlotError) -> Self {
        match error {
            SlotError::Task(error) => error.into(),
            SlotError::Make(error) => unavailable("a value could not be made", &error),
            SlotError::Nested(_) | SlotError::Outside(_) | SlotError::Closed => Self::internal(error.to_string()),
        }
    }
}

/// A model that could not be loaded, or was unloaded, is `UNAVAILABLE`, a key that cannot name a model
/// `INVALID_ARGUMENT`, and a model that is larger than the budget `INTERNAL`, all without the error.
#[cfg_attr(docsrs, doc(cfg(feature = "tonic")))]
impl From<ModelError> for Status {
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::Task(error) => error.into(),
            ModelError::Load { error, .. } => unavailable("the model could not be loaded", &error),
            ModelError::Unloaded(_) => Self::unavailable("the model was unloaded"),
            ModelError::BadKey { .. } => Self::invalid_argument("the key cannot name a model"),
            ModelError::TooLarge { .. } => Self::internal("the model is too large"),
        }
    }
}

/// An item's own error becomes the status that it is by itself. A batch that failed is `INTERNAL` without details.
#[cfg_attr(docsrs, doc(cfg(feature = "tonic")))]
impl<E: Into<Self>> From<BatchError<E>> for Status {
    fn from(error: BatchError<E>) -> Self {
        match error {
            BatchError::Item(error) => error.into(),
            BatchError::Task(error) => error.into(),
            BatchError::Length { .. } | BatchError::Service(_) => Self::internal("the batch failed"),
        }
    }
}

/// `UNAVAILABLE`, with the time of the next attempt.
fn unavailable(message: &str, error: &MakeError) -> Status {
    let mut metadata = MetadataMap::new();
    if let Some(wait) = error.retry_after() {
        metadata.insert(GRPC_PUSHBACK, millis(wait).into());
    }
    Status::with_metadata(Code::Unavailable, message, metadata)
}

const fn code(code: GrpcCode) -> Code {
    match code {
        GrpcCode::InvalidArgument => Code::InvalidArgument,
        GrpcCode::DeadlineExceeded => Code::DeadlineExceeded,
        GrpcCode::ResourceExhausted => Code::ResourceExhausted,
        GrpcCode::Internal => Code::Internal,
        GrpcCode::Unavailable => Code::Unavailable,
    }
}
