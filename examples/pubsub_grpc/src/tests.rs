//! The example `pubsub_grpc`: the layer below a tonic client, and the small Pub/Sub API that it calls.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::stream;
use hyper::body::Incoming;
use hyper_util::{client::legacy, client::legacy::Client, rt::TokioExecutor};
use tokio::{sync::Barrier, task::JoinSet, time::timeout};
use tonic::{Code, body::Body};
use tower::{Layer, ServiceExt, util::BoxCloneSyncService};
use tower_salesforce_auth::{
    ReplayBody, SalesforceAuth, SalesforceAuthLayer, Session, SessionHandle,
    emulator::{Org, Served},
    flow::{ClientCredentials, RefreshToken},
    oauth::App,
};

use crate::{
    eventbus::{
        FetchRequest, ProducerEvent, PublishRequest, ReplayPreset, TopicRequest,
        pub_sub_client::PubSubClient,
    },
    server::{EventBus, unauthenticated},
    subscription::Subscription,
};

const TOPIC: &str = "/event/Order__e";
const ORG_ID: &str = "00Dxx0000001gEFEAY";

type Sent = http::Request<()>;
type Wire =
    BoxCloneSyncService<http::Request<ReplayBody<Body>>, http::Response<Incoming>, legacy::Error>;

/// An org, its Pub/Sub API, and what was sent there.
struct Bed {
    org: Org,
    _served: Served,
    bus: EventBus,
    origin: String,
    _serving: JoinSet<()>,
    sent: Arc<Mutex<Vec<Sent>>>,
}

impl Bed {
    async fn new() -> Self {
        let org = Org::new();
        let served = org.serve().await.unwrap();
        let bus = EventBus::new(org.clone());
        let (origin, serving) = bus.serve().await.unwrap();
        Self {
            org,
            _served: served,
            bus,
            origin,
            _serving: serving,
            sent: Arc::default(),
        }
    }

    fn app(&self) -> App {
        let app = App::new(self.org.login_url().parse().unwrap(), self.org.client_id());
        app.client_secret(self.org.client_secret())
    }

    /// A layer that logs in by itself, and allows the origin of the API.
    fn layer(&self) -> SalesforceAuthLayer {
        let http = Client::builder(TokioExecutor::new()).build_http();
        let handle = SessionHandle::builder(ClientCredentials::new(http, self.app()))
            .allow_origin(self.origin.parse().unwrap())
            .build();
        handle.into()
    }

    /// A client that records the attempts of the layer.
    fn client(&self, layer: &SalesforceAuthLayer) -> PubSubClient<SalesforceAuth<Wire>> {
        PubSubClient::with_origin(self.service(layer), self.origin.parse().unwrap())
    }

    fn service(&self, layer: &SalesforceAuthLayer) -> SalesforceAuth<Wire> {
        let sent = Arc::clone(&self.sent);
        let http = Client::builder(TokioExecutor::new());
        let wire = http.clone().http2_only(true).build_http().map_request(
            move |request: http::Request<ReplayBody<Body>>| {
                let mut copy = http::Request::new(());
                *copy.uri_mut() = request.uri().clone();
                *copy.headers_mut() = request.headers().clone();
                sent.lock().unwrap().push(copy);
                request
            },
        );
        layer.layer(BoxCloneSyncService::new(wire))
    }

    fn sent(&self) -> Vec<Sent> {
        self.sent.lock().unwrap().clone()
    }

    fn refreshes(&self) -> u64 {
        self.org.counters().token_requests
    }
}

fn order(id: &str) -> PublishRequest {
    let id = id.to_owned();
    PublishRequest {
        topic_name: TOPIC.to_owned(),
        events: vec![ProducerEvent {
            id,
            ..ProducerEvent::default()
        }],
        ..PublishRequest::default()
    }
}

fn topic() -> TopicRequest {
    let topic_name = TOPIC.to_owned();
    TopicRequest { topic_name }
}

fn value<'a>(sent: &'a Sent, name: &str) -> Option<&'a str> {
    Some(sent.headers().get(name)?.to_str().unwrap())
}

async fn next_ids(subscription: &mut Subscription<SalesforceAuth<Wire>>) -> Vec<String> {
    // A missed event never comes.
    let events = timeout(Duration::from_secs(60), subscription.next()).await;
    let events = events.expect("events").unwrap();
    events.into_iter().map(|it| it.event.unwrap().id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_calls_with_an_expired_session_cost_one_refresh() {
    const CALLERS: usize = 100;
    let bed = Bed::new().await;
    let client = bed.client(&bed.layer());
    client.clone().get_topic(topic()).await.unwrap();
    for round in 1..=5 {
        bed.org.expire_sessions();
        let (refreshes, sent) = (bed.refreshes(), bed.sent().len());
        let start = Arc::new(Barrier::new(CALLERS));
        let mut callers = JoinSet::new();
        for n in 0..CALLERS {
            let (mut client, start) = (client.clone(), Arc::clone(&start));
            callers.spawn(async move {
                start.wait().await;
                let id = format!("{round}-{n}");
                let published = client.publish(order(&id)).await.unwrap().into_inner();
                assert_eq!(published.results[0].correlation_key, id);
                published.results[0].replay_id.clone()
            });
        }
        let replay_ids: HashSet<_> = callers.join_all().await.into_iter().collect();
        assert_eq!(replay_ids.len(), CALLERS);
        assert_eq!(bed.refreshes() - refreshes, 1);
        let attempts = bed.sent().len() - sent;
        assert!(attempts > CALLERS, "no call met the expired session");
    }
    // Each event was published once: rejected calls published nothing.
    let mut all = Subscription::new(client, TOPIC, Some(0_usize.to_be_bytes().to_vec()));
    let mut seen = Vec::new();
    while seen.len() < 5 * CALLERS {
        seen.extend(next_ids(&mut all).await);
    }
    assert_eq!(seen.len(), 5 * CALLERS);
    assert_eq!(seen.iter().collect::<HashSet<_>>().len(), 5 * CALLERS);
}

#[tokio::test]
async fn a_rejected_request_stream_is_replayed_from_its_start() {
    let bed = Bed::new().await;
    let mut client = bed.client(&bed.layer());
    client.get_topic(topic()).await.unwrap();
    bed.org.expire_sessions();

    // The third message comes only during the second attempt.
    let sent = Arc::clone(&bed.sent);
    let third = stream::once(async move {
        while sent.lock().unwrap().len() < 3 {
            tokio::task::yield_now().await;
        }
        order("c")
    });
    let requests = futures_util::StreamExt::chain(stream::iter([order("a"), order("b")]), third);
    let responses = client.publish_stream(requests).await.unwrap();
    let mut responses = responses.into_inner();
    let mut keys = Vec::new();
    while let Some(response) = responses.message().await.unwrap() {
        keys.extend(response.results.into_iter().map(|it| it.correlation_key));
    }
    assert_eq!(keys, ["a", "b", "c"]);
    assert_eq!(bed.sent().len(), 3);
    assert_eq!(bed.refreshes(), 2);

    let from_the_start = Some(0_usize.to_be_bytes().to_vec());
    let mut subscription = Subscription::new(client, TOPIC, from_the_start);
    assert_eq!(next_ids(&mut subscription).await, ["a", "b", "c"]);
}

#[tokio::test]
async fn an_attempt_has_the_metadata_of_one_session() {
    let bed = Bed::new().await;
    let grant = bed.org.authorize();
    let http = Client::builder(TokioExecutor::new()).build_http();
    // The first session has no organization id of its own: it is read from the token.
    let first = Session::new(grant.access_token(), grant.instance_url()).unwrap();
    let handle = SessionHandle::builder(RefreshToken::new(http, bed.app(), grant.refresh_token()))
        .initial_session(first)
        .allow_origin(bed.origin.parse().unwrap())
        .build();
    let layer = SalesforceAuthLayer::from(handle);
    bed.org.expire_sessions();
    let mut client = bed.client(&layer);
    client.get_topic(topic()).await.unwrap();

    let sent = bed.sent();
    let (rejected, accepted) = (&sent[0], &sent[1]);
    let refreshed = layer.handle().try_session().unwrap();
    assert_eq!(sent.len(), 2);
    assert_eq!(value(rejected, "accesstoken"), Some(grant.access_token()));
    assert_eq!(value(rejected, "tenantid"), Some(ORG_ID));
    assert_eq!(
        value(accepted, "accesstoken"),
        Some(refreshed.access_token().expose())
    );
    assert_eq!(value(accepted, "tenantid"), Some(ORG_ID));
    for attempt in &sent {
        assert_eq!(value(attempt, "instanceurl"), Some(grant.instance_url()));
        assert_eq!(value(attempt, "authorization"), None);
        assert!(attempt.headers()["accesstoken"].is_sensitive());
    }
}

/// Both orgs share one pool of connections, and the extensions of a request name its session.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_of_two_orgs_gets_its_own_metadata_through_one_service() {
    let [ours, theirs] = [Bed::new().await, Bed::new().await];
    let their_handle = theirs.layer().handle();
    let service = ours.service(&ours.layer());
    let to_us = PubSubClient::with_origin(service.clone(), ours.origin.parse().unwrap());
    let to_them = PubSubClient::with_origin(service, theirs.origin.parse().unwrap());
    for round in 1..=3 {
        let mut callers = JoinSet::new();
        for n in 0..100 {
            let mut request = tonic::Request::new(topic());
            let mut client = if n % 2 == 0 { &to_us } else { &to_them }.clone();
            if n % 2 == 1 {
                request.extensions_mut().insert(their_handle.clone());
            }
            callers.spawn(async move { client.get_topic(request).await });
        }
        for answer in callers.join_all().await {
            answer.unwrap();
        }
        for bed in [&ours, &theirs] {
            assert_eq!(bed.refreshes(), round);
            bed.org.expire_sessions();
        }
    }
    for attempt in ours.sent() {
        let is_ours = attempt.uri().to_string().starts_with(&ours.origin);
        let org = if is_ours { &ours.org } else { &theirs.org };
        assert_eq!(value(&attempt, "instanceurl"), Some(&*org.instance_url()));
    }
}

#[tokio::test]
async fn a_foreign_origin_gets_no_metadata() {
    let bed = Bed::new().await;
    let grant = bed.org.authorize();
    let http = Client::builder(TokioExecutor::new()).build_http();
    let session = Session::new(grant.access_token(), grant.instance_url()).unwrap();
    let session = session.with_ids(ORG_ID, "005xx000001SwiUAAS");
    let flow = RefreshToken::new(http, bed.app(), grant.refresh_token());
    let handle = SessionHandle::builder(flow)
        .initial_session(session)
        .build();
    let layer = SalesforceAuthLayer::from(handle);

    let status = bed.client(&layer).get_topic(topic()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    let sent = bed.sent();
    assert_eq!(sent.len(), 1);
    for name in ["accesstoken", "instanceurl", "tenantid", "authorization"] {
        assert_eq!(value(&sent[0], name), None);
    }
    assert_eq!(bed.refreshes(), 0);

    // The same with the origin allowed.
    let layer = bed.layer();
    bed.client(&layer).get_topic(topic()).await.unwrap();
    assert_eq!(value(&bed.sent()[1], "tenantid"), Some(ORG_ID));
}

#[tokio::test]
async fn unauthenticated_after_a_message_reaches_the_caller() {
    let bed = Bed::new().await;
    let mut client = bed.client(&bed.layer());
    let (requests, mut to_send) = tokio::sync::mpsc::channel(1);
    let first = FetchRequest {
        topic_name: TOPIC.to_owned(),
        replay_preset: ReplayPreset::Earliest.into(),
        num_requested: 10,
        ..FetchRequest::default()
    };
    requests.send(first).await.unwrap();
    let to_send = stream::poll_fn(move |cx| to_send.poll_recv(cx));
    let responses = client.subscribe(to_send).await.unwrap();
    let mut responses = responses.into_inner();
    client.publish(order("a")).await.unwrap();
    let message = responses.message().await.unwrap().unwrap();
    assert_eq!(message.events.len(), 1);
    let (refreshes, sent) = (bed.refreshes(), bed.sent().len());

    bed.org.expire_sessions();
    bed.bus.end_streams(unauthenticated("rpc-1")).await;
    let status = responses.message().await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().ends_with("rpcId: rpc-1"));
    assert_eq!(
        status.metadata().get("error-code").unwrap(),
        "sfdc.platform.eventbus.grpc.service.auth.error"
    );
    assert_eq!((bed.refreshes(), bed.sent().len()), (refreshes, sent));
}

#[tokio::test]
async fn a_stream_with_an_expired_session_stays_open() {
    let bed = Bed::new().await;
    let client = bed.client(&bed.layer());
    let mut subscription = Subscription::new(client.clone(), TOPIC, None);
    subscription.begin().await.unwrap();
    bed.org.expire_sessions();
    client.clone().publish(order("a")).await.unwrap();
    assert_eq!(next_ids(&mut subscription).await, ["a"]);
    let sent = bed.sent();
    let subscribed = sent
        .iter()
        .filter(|it| it.uri().path().ends_with("/Subscribe"));
    assert_eq!(subscribed.count(), 1);
}

#[tokio::test]
async fn an_ended_stream_resumes_after_its_last_event() {
    let bed = Bed::new().await;
    let client = bed.client(&bed.layer());
    // The subscription begins with an expired session.
    let mut subscription = Subscription::new(client.clone(), TOPIC, None);
    client.clone().publish(order("before")).await.unwrap();
    bed.org.expire_sessions();
    subscription.begin().await.unwrap();
    assert_eq!(bed.refreshes(), 2);

    client.clone().publish(order("a")).await.unwrap();
    assert_eq!(next_ids(&mut subscription).await, ["a"]);
    for (n, missed) in ["b", "c", "d"].into_iter().enumerate() {
        bed.bus.end_streams(unauthenticated("rpc-1")).await;
        // No client is subscribed when this is published.
        client.clone().publish(order(missed)).await.unwrap();
        bed.org.expire_sessions();
        let sent = bed.sent().len();
        assert_eq!(next_ids(&mut subscription).await, [missed]);
        // The resuming call was rejected, and replayed.
        assert_eq!(bed.sent().len(), sent + 2);
        assert_eq!(bed.refreshes(), 3 + u64::try_from(n).unwrap());
    }
}

#[tokio::test]
async fn a_stream_that_ends_without_a_message_is_not_resumed() {
    let bed = Bed::new().await;
    let client = bed.client(&bed.layer());
    let mut subscription = Subscription::new(client, TOPIC, None);
    subscription.begin().await.unwrap();
    bed.bus.end_streams(unauthenticated("rpc-1")).await;
    let status = subscription.next().await.err().unwrap();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!((bed.refreshes(), bed.sent().len()), (1, 1));
}
