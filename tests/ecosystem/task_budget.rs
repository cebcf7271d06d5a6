//! tokio's task budget: a task that does much at once is made to wait, although nothing is missing.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response};
use http_body_util::Full;
use tokio::task::{JoinSet, unconstrained};
use tower::{
    BoxError, Service, ServiceBuilder, ServiceExt, load_shed::error::Overloaded, service_fn,
    util::BoxCloneService,
};
use tower_salesforce_auth::{SalesforceAuthLayer, Session};

const INSTANCE: &str = "https://example.my.salesforce.com";
const REQUESTS: usize = 500;
/// How much a task may do before it has to wait: tokio's number.
const BUDGET: usize = 128;

type Client = BoxCloneService<Request<Full<Bytes>>, (), BoxError>;

fn layer() -> SalesforceAuthLayer {
    SalesforceAuthLayer::fixed(Session::new("T0", INSTANCE).unwrap())
}

async fn answer<B>(_: Request<B>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::default())
}

fn client() -> Client {
    let service = ServiceBuilder::new()
        .map_response(drop)
        .layer(layer())
        .service(service_fn(answer));
    BoxCloneService::new(service)
}

/// A buffer further inside, below a limit and the layer, as in the stack of the guide.
fn buffered_inside() -> Client {
    let service = ServiceBuilder::new()
        .map_response(drop)
        .load_shed()
        .concurrency_limit(2 * REQUESTS)
        .layer(layer())
        .buffer(2 * REQUESTS)
        .service(service_fn(answer));
    BoxCloneService::new(service)
}

/// A buffer with room for more requests than there are. Each slot is taken with tokio's own semaphore.
fn buffered() -> Client {
    let service = ServiceBuilder::new()
        .load_shed()
        .buffer(2 * REQUESTS)
        .service(client());
    BoxCloneService::new(service)
}

/// A limit above the number of requests. tower takes a free permit without a look at the budget.
fn limited() -> Client {
    let service = ServiceBuilder::new()
        .load_shed()
        .concurrency_limit(2 * REQUESTS)
        .service(client());
    BoxCloneService::new(service)
}

fn limits() -> Request<Full<Bytes>> {
    let uri = format!("{INSTANCE}/services/data/v66.0/limits");
    Request::get(uri).body(Full::default()).unwrap()
}

fn shed<T>(answers: &[Result<T, BoxError>]) -> usize {
    let refused = answers.iter().filter_map(|answer| answer.as_ref().err());
    refused
        .inspect(|error| assert!(error.is::<Overloaded>(), "{error}"))
        .count()
}

/// One task begins all requests, without a pause in between.
async fn at_once(mut service: Client) -> Vec<Result<(), BoxError>> {
    let mut begun = Vec::new();
    for _ in 0..REQUESTS {
        begun.push(service.ready().await.unwrap().call(limits()));
    }
    join_all(begun).await
}

/// `load_shed` takes the end of the budget for the end of the slots.
#[tokio::test]
async fn load_shed_around_a_buffer_sheds_a_task_that_used_its_budget() {
    for service in [buffered(), buffered_inside()] {
        let answers = tokio::spawn(at_once(service)).await.unwrap();
        assert_eq!(shed(&answers), REQUESTS - BUDGET, "there was room for all");
    }
}

#[tokio::test]
async fn load_shed_around_a_buffer_sheds_nothing_without_a_budget() {
    for service in [buffered(), buffered_inside()] {
        let answers = tokio::spawn(unconstrained(at_once(service))).await;
        assert_eq!(shed(&answers.unwrap()), 0);
    }
}

#[tokio::test]
async fn load_shed_around_a_buffer_sheds_nothing_of_a_task_each() {
    let service = buffered();
    let mut tasks = JoinSet::new();
    for _ in 0..REQUESTS {
        tasks.spawn(service.clone().oneshot(limits()));
    }
    assert_eq!(shed(&tasks.join_all().await), 0);
}

#[tokio::test]
async fn load_shed_around_a_concurrency_limit_knows_no_budget() {
    let answers = tokio::spawn(at_once(limited())).await.unwrap();
    assert_eq!(shed(&answers), 0);
}
