//! The Pub/Sub API through a tonic client: publish and subscribe, with sessions that expire before and during a call.
//!
//! ```sh
//! cargo run -p pubsub_grpc
//! ```
//!
//! By default the org is emulated, and its Pub/Sub API is a small tonic server. With a real org (`SF_LOGIN_URL`, the My
//! Domain, `SF_CLIENT_ID` and `SF_CLIENT_SECRET` of an app with a Run As user) the example shows the topic `SF_TOPIC`
//! (default: `/data/ChangeEvents`) and its events, until it is stopped.
//!
//! `eventbus.rs` says how the client is generated from `pubsub_api.proto`, and `subscription.rs` how a subscription resumes
//! after its stream has ended.

mod eventbus;
mod server;
mod subscription;
#[cfg(test)]
mod tests;

use std::env;

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::task::JoinSet;
use tonic::body::Body;
use tower::ServiceBuilder;
use tower_salesforce_auth::{
    BoxError, ReplayBody, SalesforceAuth, SalesforceAuthLayer, SessionHandle, emulator::Org,
    flow::ClientCredentials, oauth::App,
};

use self::{
    eventbus::{
        ProducerEvent, PublishRequest, SchemaRequest, TopicRequest, pub_sub_client::PubSubClient,
    },
    server::{EventBus, unauthenticated},
    subscription::Subscription,
};

const PUB_SUB: &str = "https://api.pubsub.salesforce.com:7443";
const TOPIC: &str = "/event/Order__e";
const CALLERS: usize = 100;

type Http<B> = Client<HttpsConnector<HttpConnector>, B>;
type PubSub = PubSubClient<SalesforceAuth<Http<ReplayBody<Body>>>>;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    match env::var("SF_LOGIN_URL") {
        Ok(login_url) => with_real_org(&login_url).await,
        Err(_) => with_emulated_org().await,
    }
}

/// A client whose calls carry the session.
fn connect(app: App, origin: &str) -> Result<PubSub, BoxError> {
    let login = ClientCredentials::new(http().build(connector()?), app);
    // The API has another origin than the instance, which has to be allowed explicitly.
    let handle = SessionHandle::builder(login)
        .allow_origin(origin.parse()?)
        .build();
    let layer = SalesforceAuthLayer::from(handle);
    let service = ServiceBuilder::new()
        // The layer recognises a gRPC call by its content type, and adds `accesstoken`, `instanceurl` and `tenantid` of the
        // current session to the metadata of each attempt.
        .layer(layer)
        // The client below sees each attempt, and uses HTTP/2. Its body is `ReplayBody<tonic::body::Body>`: tonic's body, and
        // what a replay needs.
        //
        // tonic's own `Channel` (its feature "channel") takes only tonic's body, so wrap the other one:
        //
        //     .map_request(|request: http::Request<ReplayBody<Body>>| request.map(Body::new))
        //     .service(Endpoint::from_shared(origin)?.connect_lazy())
        //
        // A channel ignores the URI and calls its endpoint, while the layer decides by the URI: use the same `origin` for both.
        .service(http().http2_only(true).build(connector()?));
    // tonic's clients take a tower service of HTTP requests. `PubSubClient::new` would send relative URIs, which go to the
    // instance.
    Ok(PubSubClient::with_origin(service, origin.parse()?))
}

async fn with_emulated_org() -> Result<(), BoxError> {
    let org = Org::new();
    let served = org.serve().await?;
    let bus = EventBus::new(org.clone());
    let (origin, _serving) = bus.serve().await?;
    let app =
        App::new(org.login_url().parse()?, org.client_id()).client_secret(org.client_secret());
    let client = connect(app, &origin)?;

    describe(&mut client.clone(), TOPIC).await?;

    println!("\nThe session expires; {CALLERS} events are published at once:");
    org.expire_sessions();
    let logins = org.counters().token_requests;
    let mut callers = JoinSet::new();
    for n in 0..CALLERS {
        let mut client = client.clone();
        callers.spawn(async move { client.publish(order(n)).await });
    }
    let answers = callers.join_all().await;
    let published = answers.iter().filter(|answer| answer.is_ok()).count();
    let logins = org.counters().token_requests - logins;
    println!("  {published} published, {logins} login");
    assert_eq!((published, logins), (CALLERS, 1));

    println!("The session expires; then a client subscribes:");
    org.expire_sessions();
    let mut subscription = Subscription::new(client.clone(), TOPIC, None);
    // The server rejects the call with UNAUTHENTICATED in the headers, before any message. The layer refreshes the session,
    // and replays the call with all messages sent so far.
    subscription.begin().await?;
    client.clone().publish(order(CALLERS)).await?;
    show(&mut subscription).await?;

    println!("The session expires while the stream is open; the stream continues:");
    org.expire_sessions();
    client.clone().publish(order(CALLERS + 1)).await?;
    show(&mut subscription).await?;

    println!("The stream ends, and the session expires. The subscription misses no event:");
    bus.end_streams(unauthenticated("rpc-of-the-stream")).await;
    client.clone().publish(order(CALLERS + 2)).await?;
    org.expire_sessions();
    // UNAUTHENTICATED after a message goes to the caller of the stream. The subscription subscribes again after its last
    // event, and the layer handles that call like any other.
    show(&mut subscription).await?;

    served.shutdown().await;
    Ok(())
}

async fn with_real_org(login_url: &str) -> Result<(), BoxError> {
    let variable = |name| env::var(name).map_err(|_| format!("{name} is not set"));
    let app = App::new(login_url.parse()?, variable("SF_CLIENT_ID")?)
        .client_secret(variable("SF_CLIENT_SECRET")?);
    let topic = env::var("SF_TOPIC").unwrap_or_else(|_| "/data/ChangeEvents".to_owned());
    let client = connect(app, PUB_SUB)?;

    describe(&mut client.clone(), &topic).await?;
    println!("\nIts events from now on:");
    let mut subscription = Subscription::new(client, topic, None);
    loop {
        show(&mut subscription).await?;
    }
}

async fn describe(client: &mut PubSub, topic: &str) -> Result<(), BoxError> {
    let topic_name = topic.to_owned();
    let topic = client.get_topic(TopicRequest { topic_name }).await?;
    let topic = topic.into_inner();
    println!(
        "{}: publish {}, subscribe {}",
        topic.topic_name, topic.can_publish, topic.can_subscribe
    );
    // The topic of all changes has a schema for each object: its events name the schema.
    if !topic.schema_id.is_empty() {
        let schema_id = topic.schema_id;
        let schema = client.get_schema(SchemaRequest { schema_id }).await?;
        println!("{}", schema.into_inner().schema_json);
    }
    Ok(())
}

async fn show(
    subscription: &mut Subscription<SalesforceAuth<Http<ReplayBody<Body>>>>,
) -> Result<(), BoxError> {
    for event in subscription.next().await? {
        let id = event.event.map(|event| event.id).unwrap_or_default();
        println!("  event {id}");
    }
    Ok(())
}

/// An event with this number. The small server ignores the payload; a real org requires Avro by the schema.
fn order(n: usize) -> PublishRequest {
    let event = ProducerEvent {
        id: format!("order-{n}"),
        payload: format!("{n}").into_bytes(),
        ..ProducerEvent::default()
    };
    PublishRequest {
        topic_name: TOPIC.to_owned(),
        events: vec![event],
        ..PublishRequest::default()
    }
}

fn http() -> hyper_util::client::legacy::Builder {
    Client::builder(TokioExecutor::new())
}

/// TLS, and plain HTTP for the emulated org.
fn connector() -> Result<HttpsConnector<HttpConnector>, rustls::Error> {
    let connector = HttpsConnectorBuilder::new()
        .with_provider_and_webpki_roots(rustls::crypto::aws_lc_rs::default_provider())?
        .https_or_http()
        .enable_all_versions()
        .build();
    Ok(connector)
}
