//! The patch of tonic's router works: handlers run on workers.

use integration_tests::pb::{Input, Output, test_server};
use tonic::{Request, Response, Status};
use tower_service::Service;

struct Place;

#[tonic::async_trait]
impl test_server::Test for Place {
    async fn unary_call(&self, _: Request<Input>) -> Result<Response<Output>, Status> {
        Err(Status::unknown(std::thread::current().name().unwrap_or_default()))
    }
}

#[tokio::test]
async fn handlers_run_in_the_pool() {
    let mut routes = tonic::service::Routes::new(test_server::TestServer::new(Place));
    let request = http::Request::post("/test.Test/UnaryCall").header("content-type", "application/grpc");
    let request = request.body(tonic::body::Body::new("\0\0\0\0\0".to_owned())).unwrap();
    let response = routes.call(request).await.unwrap();
    let place = response.headers()["grpc-message"].to_str().unwrap();
    assert!(place.starts_with("offload-cpu-"), "{place}");
}
