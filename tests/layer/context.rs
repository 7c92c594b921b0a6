//! The context of a handler in a pool: the Tokio runtime, the `tracing` span and the dispatcher of its caller.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use axum::Router;
use axum::routing::get as on_get;
use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Handle};
use tower::{Layer, ServiceExt, service_fn};
use tower_offload::{Cpu, PoolLayer, Pools};
use tracing::Instrument;

use crate::fixtures::{answer, get, in_time, locator, log_of, place, request, whole};

/// The answer of `handler` in the pool `cpu`.
async fn offloaded<H, F>(handler: H) -> String
where
    H: Fn() -> F + Clone + Send + Sync + 'static,
    F: Future<Output = String> + Send + 'static,
{
    let app: Router = Router::new().route("/", on_get(handler)).layer(PoolLayer::<Cpu>::new(&Pools::default()));
    let response = in_time(answer(app, get("/"))).await;
    assert_eq!(response.status(), 200, "{}", response.body());
    response.into_body()
}

async fn uses_tokio() -> String {
    let spawned = tokio::spawn(async { place() }).await.expect("the task ends");
    let blocking = tokio::task::spawn_blocking(place).await.expect("the task ends");
    tokio::time::sleep(Duration::from_millis(1)).await;
    let late = tokio::time::timeout(Duration::from_millis(1), std::future::pending::<()>()).await.is_err();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let (mut here, there) = tokio::join!(async { TcpStream::connect(address).await.expect("it listens") }, async {
        listener.accept().await.expect("somebody comes")
    });
    let mut there = there.0;
    here.write_all(b"hello").await.expect("it is open");
    let mut hello = [0; 5];
    there.read_exact(&mut hello).await.expect("it was sent");
    format!("{} {spawned} {blocking} {late} {}", place(), String::from_utf8_lossy(&hello))
}

#[tokio::test]
async fn tasks_timers_and_sockets_work_on_a_current_thread_runtime() {
    assert_eq!(offloaded(uses_tokio).await, "cpu inline inline true hello");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_timers_and_sockets_work_on_a_multi_thread_runtime() {
    assert_eq!(offloaded(uses_tokio).await, "cpu inline inline true hello");
}

async fn blocks() -> String {
    let waited = Handle::current().block_on(async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        tokio::spawn(async { 1 }).await.expect("the task ends")
    });
    // As a blocking HTTP client does.
    let own = Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let nested = own.block_on(async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        2
    });
    let (sender, receiver) = tokio::sync::oneshot::channel();
    thread::spawn(move || sender.send(3));
    let received = receiver.blocking_recv().expect("it is sent");
    let in_place = tokio::task::block_in_place(|| 4);
    format!("{} {waited} {nested} {received} {in_place}", place())
}

#[tokio::test]
async fn a_handler_may_block_on_a_current_thread_runtime() {
    assert_eq!(offloaded(blocks).await, "cpu 1 2 3 4");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_handler_may_block_on_a_multi_thread_runtime() {
    assert_eq!(offloaded(blocks).await, "cpu 1 2 3 4");
}

#[test]
fn each_request_finds_the_runtime_that_it_came_from() {
    let pools = Pools::default();
    let service = PoolLayer::<Cpu>::new(&pools).any_request().layer(service_fn(|()| async {
        tokio::task::yield_now().await;
        Ok::<_, std::convert::Infallible>(Handle::current().id())
    }));
    for _ in 0..2 {
        let runtime = Builder::new_current_thread().build().unwrap();
        let found = runtime.block_on(service.clone().oneshot(())).unwrap();
        assert_eq!(found, runtime.handle().id());
    }
}

#[test]
fn the_layer_works_where_there_is_no_tokio() {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let service = PoolLayer::<Cpu>::new(&Pools::default()).layer(locator());
    let mut future = pin!(answer(service, request("GET", "/")));
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let answered = loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(answered) => break answered,
            Poll::Pending => thread::park(),
        }
    };
    assert_eq!(answered.body(), "cpu");
}

#[test]
fn events_of_a_handler_go_to_the_span_and_the_dispatcher_of_its_own_client() {
    let pools = Pools::builder().pool(Cpu, tower_offload::PoolConfig::new(1)).build().unwrap();
    let service = PoolLayer::<Cpu>::new(&pools).layer(service_fn(|request: Request<String>| async move {
        tracing::info!("begins {}", request.uri().path());
        tokio::task::yield_now().await;
        async { tracing::info!("goes on in {}", place()) }.instrument(tracing::info_span!("inner")).await;
        Ok::<_, std::convert::Infallible>(http::Response::new(String::new()))
    }));
    let clients = [1, 2].map(|number| {
        let service = service.clone();
        thread::spawn(move || {
            let lines = Arc::new(Mutex::new(Vec::new()));
            tracing::subscriber::with_default(log_of(&lines), || {
                let runtime = Builder::new_current_thread().enable_all().build().unwrap();
                let ask = async { service.oneshot(request("GET", &format!("/{number}"))).await };
                let response = runtime.block_on(ask.instrument(tracing::info_span!("client", number)));
                assert_eq!(response.unwrap().status(), 200);
            });
            String::from_utf8(lines.lock().unwrap().clone()).unwrap()
        })
    });
    for (client, number) in clients.into_iter().zip(1..) {
        let log = client.join().unwrap();
        assert_eq!(
            log,
            format!(
                " INFO client{{number={number}}}: begins /{number}\n \
                 INFO client{{number={number}}}:inner: goes on in cpu\n"
            )
        );
    }
}

#[tokio::test]
async fn a_worker_keeps_nothing_of_the_request_it_ran() {
    let pools = Pools::builder().pool(Cpu, tower_offload::PoolConfig::new(1)).build().unwrap();
    let seen = service_fn(|_: Request<String>| async {
        let span = tracing::Span::current().metadata().map_or("none", tracing::Metadata::name);
        Ok::<_, std::convert::Infallible>(http::Response::new(span.to_owned()))
    });
    let service = PoolLayer::<Cpu>::new(&pools).layer(seen);
    let lines = Arc::new(Mutex::new(Vec::new()));
    let traced = {
        let _here = tracing::subscriber::set_default(log_of(&lines));
        let span = tracing::info_span!("first");
        service.clone().oneshot(request("GET", "/")).instrument(span).await.unwrap()
    };
    assert_eq!(whole(traced).await.body(), "first");
    assert_eq!(answer(service, request("GET", "/")).await.body(), "none");
}

tokio::task_local! { static USER: &'static str; }

#[tokio::test]
async fn a_hook_carries_a_task_local_of_middleware() {
    let carry = || {
        let user = USER.try_with(|user| *user).ok();
        move |run: &mut dyn FnMut()| match user {
            Some(user) => USER.sync_scope(user, run),
            None => run(),
        }
    };
    let pools = Pools::builder().context(carry).build().expect("the settings are valid");
    let handler = on_get(async || {
        tokio::task::yield_now().await;
        format!("{} {}", place(), USER.get())
    });
    let app: Router = Router::new().route("/", handler).layer(PoolLayer::<Cpu>::new(&pools));
    for user in ["ann", "bob"] {
        let response = USER.scope(user, in_time(answer(app.clone(), get("/")))).await;
        assert_eq!(response.body(), &format!("cpu {user}"));
    }
}
