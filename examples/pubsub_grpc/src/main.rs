//! The Pub/Sub API through a tonic client: publish and subscribe, with sessions that expire before and during a call.
//!
//! ```sh
//! cargo run -p pubsub_grpc
//! ```
//!
//! Without more, the org is an emulated one, and the Pub/Sub API before it a small tonic server. With a real org
//! (`SF_LOGIN_URL`, the My Domain, `SF_CLIENT_ID` and `SF_CLIENT_SECRET` of an app with a Run As user) it shows the
//! topic `SF_TOPIC`, `/data/ChangeEvents` by default, and its events as they come, until it is stopped.
//!
//! `eventbus.rs` tells how the client is made of `pubsub_api.proto`, and `subscription.rs` how a stream goes on that
//! ended.

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
    BoxError, ReplayBody, SalesforceAuth, SalesforceAuthLayer, emulator::Org,
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

/// The client: whatever a message is, and wherever it goes, it carries the session.
fn connect(app: App, origin: &str) -> Result<PubSub, BoxError> {
    let login = ClientCredentials::new(http().build(connector()?), app);
    // The API has an origin of its own, which is not the instance's, and has to be trusted by name.
    let layer = SalesforceAuthLayer::new(login).allow_origin(origin)?;
    let service = ServiceBuilder::new()
        // It knows a gRPC call by its content type, and puts `accesstoken`, `instanceurl` and `tenantid` into the
        // metadata of each attempt: those of one session, whichever it is by then.
        .layer(layer)
        // What is below sees each attempt, and speaks HTTP/2. It takes `ReplayBody<tonic::body::Body>`, which is the body
        // that tonic made, and what it takes to send it again.
        //
        // tonic's own `Channel` (its feature "channel") takes nothing but tonic's body, so the other is put into one:
        //
        //     .map_request(|request: http::Request<ReplayBody<Body>>| request.map(Body::new))
        //     .service(Endpoint::from_shared(origin)?.connect_lazy())
        //
        // It goes to its endpoint whatever the URI says, and the layer goes by the URI: let both be the same `origin`.
        .service(http().http2_only(true).build(connector()?));
    // Tower services of HTTP requests are what tonic's clients are made for. `PubSubClient::new` would send relative URIs,
    // which go to the instance.
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

    println!("The session expires; then somebody subscribes:");
    org.expire_sessions();
    let mut subscription = Subscription::new(client.clone(), TOPIC, None);
    // Rejected by the status UNAUTHENTICATED, which came with the headers, since nothing was answered yet. The layer
    // renews the session, and sends the call again with all that was sent on it so far.
    subscription.begin().await?;
    client.clone().publish(order(CALLERS)).await?;
    show(&mut subscription).await?;

    println!("The session expires while the stream is open, which goes on:");
    org.expire_sessions();
    client.clone().publish(order(CALLERS + 1)).await?;
    show(&mut subscription).await?;

    println!("The stream is ended, and the session expires. What came meanwhile is not missed:");
    bus.end_streams(unauthenticated("rpc-of-the-stream")).await;
    client.clone().publish(order(CALLERS + 2)).await?;
    org.expire_sessions();
    // The stream's UNAUTHENTICATED came after a message, and is the stream's to tell. The subscription subscribes
    // again, after the last event that it saw, and that call is one like any other.
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
    // The topic of all changes has as many schemas as there are objects: its events name theirs.
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

/// An event of this number. The small server does not look into the payload; a real one wants Avro by the schema.
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
