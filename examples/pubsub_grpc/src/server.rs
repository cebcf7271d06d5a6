//! A small Pub/Sub API before an emulated org: topics of any name, events in memory, and sessions that the org checks.

use std::{
    io,
    net::Ipv4Addr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use http::{StatusCode, header::AUTHORIZATION};
use http_body_util::{BodyExt, Empty};
use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tonic::{
    Code, Request, Response, Status, Streaming,
    metadata::{MetadataMap, MetadataValue},
};
use tower::ServiceExt;
use tower_salesforce_auth::{BoxError, emulator::Org};

use super::eventbus::{
    ConsumerEvent, FetchRequest, FetchResponse, ProducerEvent, PublishRequest, PublishResponse,
    PublishResult, ReplayPreset, SchemaInfo, SchemaRequest, TopicInfo, TopicRequest,
    pub_sub_server::{PubSub, PubSubServer},
};

const SCHEMA_ID: &str = "vHsVz6ZBUOOEaKLhpoFIrw";

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service. Clones share the events.
#[derive(Clone)]
pub(crate) struct EventBus {
    org: Org,
    log: Arc<watch::Sender<Log>>,
    calls: Arc<AtomicU64>,
}

/// All events of all topics. The replay id of an event is its position, counted from 1.
#[derive(Default)]
struct Log {
    events: Vec<(String, ProducerEvent)>,
    /// The number of times that all streams were ended.
    ends: u64,
    /// The status of the last end. `None` before the first end.
    end: Option<Status>,
}

impl EventBus {
    pub(crate) fn new(org: Org) -> Self {
        Self {
            org,
            log: Arc::new(watch::Sender::new(Log::default())),
            calls: Arc::default(),
        }
    }

    /// Ends every open subscription with this status, and waits until all have ended.
    pub(crate) async fn end_streams(&self, status: Status) {
        self.log.send_modify(|log| {
            log.ends += 1;
            log.end = Some(status);
        });
        self.log.closed().await;
    }

    /// Serves on a free port of 127.0.0.1, over HTTP/2 without TLS, and returns the origin. Dropping the set stops the server.
    pub(crate) async fn serve(&self) -> io::Result<(String, JoinSet<()>)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let origin = format!("http://{}", listener.local_addr()?);
        let service = TowerToHyperService::new(PubSubServer::new(self.clone()));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let mut server = http2::Builder::new(TokioExecutor::new());
                server.max_concurrent_streams(None);
                let connection = server.serve_connection(TokioIo::new(stream), service.clone());
                // The client notices a broken connection.
                connections.spawn(async move { drop(connection.await) });
            }
        });
        Ok((origin, tasks))
    }

    /// Checks the session in the metadata, as the Pub/Sub API does for each call before its first message. Returns the id of
    /// the call.
    async fn authenticate(&self, metadata: &MetadataMap) -> Result<String, Status> {
        let rpc_id = format!("rpc-{}", self.calls.fetch_add(1, Ordering::Relaxed));
        match self.owns_session(metadata).await {
            Ok(true) => Ok(rpc_id),
            Ok(false) => Err(unauthenticated(&rpc_id)),
            Err(error) => Err(Status::unavailable(format!("the org: {error}"))),
        }
    }

    /// Whether the token is live, and the metadata have its instance and its org.
    async fn owns_session(&self, metadata: &MetadataMap) -> Result<bool, BoxError> {
        let value = |name| metadata.get(name).and_then(|value| value.to_str().ok());
        let session = (
            value("accesstoken"),
            value("instanceurl"),
            value("tenantid"),
        );
        let (Some(token), Some(instance_url), Some(tenant_id)) = session else {
            return Ok(false);
        };
        let request = http::Request::get("/services/oauth2/userinfo")
            .header(AUTHORIZATION, format!("Bearer {token}"))
            .body(Empty::<Bytes>::new())?;
        let response = self.org.clone().oneshot(request).await?;
        if response.status() != StatusCode::OK {
            return Ok(false);
        }
        let user = response.into_body().collect().await?.to_bytes();
        let user: serde_json::Value = serde_json::from_slice(&user)?;
        Ok(user["organization_id"] == tenant_id && self.org.instance_url() == instance_url)
    }

    fn publish(&self, request: PublishRequest, rpc_id: String) -> PublishResponse {
        let mut results = Vec::with_capacity(request.events.len());
        self.log.send_modify(|log| {
            for event in request.events {
                let correlation_key = event.id.clone();
                log.events.push((request.topic_name.clone(), event));
                results.push(PublishResult {
                    replay_id: replay_id(log.events.len()),
                    error: None,
                    correlation_key,
                });
            }
        });
        PublishResponse {
            results,
            schema_id: SCHEMA_ID.to_owned(),
            rpc_id,
        }
    }
}

/// The answer to a session that has ended or never existed (Pub/Sub API, "Handle Errors").
pub(crate) fn unauthenticated(rpc_id: &str) -> Status {
    let message = format!(
        "An authentication exception occurred. Provide valid authentication via metadata headers. rpcId: {rpc_id}"
    );
    let mut trailers = MetadataMap::new();
    let error_code = "sfdc.platform.eventbus.grpc.service.auth.error";
    trailers.insert("error-code", MetadataValue::from_static(error_code));
    Status::with_metadata(Code::Unauthenticated, message, trailers)
}

#[tonic::async_trait]
impl PubSub for EventBus {
    type SubscribeStream = Responses<FetchResponse>;
    type PublishStreamStream = Responses<PublishResponse>;

    async fn get_topic(
        &self,
        request: Request<TopicRequest>,
    ) -> Result<Response<TopicInfo>, Status> {
        let rpc_id = self.authenticate(request.metadata()).await?;
        Ok(Response::new(TopicInfo {
            topic_name: request.into_inner().topic_name,
            tenant_guid: "core/emulator".to_owned(),
            can_publish: true,
            can_subscribe: true,
            schema_id: SCHEMA_ID.to_owned(),
            rpc_id,
        }))
    }

    async fn get_schema(
        &self,
        request: Request<SchemaRequest>,
    ) -> Result<Response<SchemaInfo>, Status> {
        let rpc_id = self.authenticate(request.metadata()).await?;
        let schema_id = request.into_inner().schema_id;
        if schema_id != SCHEMA_ID {
            return Err(Status::not_found("there is no schema with this id"));
        }
        Ok(Response::new(SchemaInfo {
            schema_json: r#"{"type":"record","name":"Order__e","fields":[{"name":"Number__c","type":"string"}]}"#
                .to_owned(),
            schema_id,
            rpc_id,
        }))
    }

    async fn publish(
        &self,
        request: Request<PublishRequest>,
    ) -> Result<Response<PublishResponse>, Status> {
        let rpc_id = self.authenticate(request.metadata()).await?;
        Ok(Response::new(self.publish(request.into_inner(), rpc_id)))
    }

    async fn publish_stream(
        &self,
        request: Request<Streaming<PublishRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        let rpc_id = self.authenticate(request.metadata()).await?;
        let this = self.clone();
        let responses = stream::try_unfold(request.into_inner(), move |mut requests| {
            let (this, rpc_id) = (this.clone(), rpc_id.clone());
            async move {
                let request = requests.message().await?;
                Ok(request.map(|request| (this.publish(request, rpc_id), requests)))
            }
        });
        Ok(Response::new(Box::pin(responses)))
    }

    async fn subscribe(
        &self,
        request: Request<Streaming<FetchRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let rpc_id = self.authenticate(request.metadata()).await?;
        let log = self.log.subscribe();
        let (begin, ends) = {
            let log = log.borrow();
            (log.events.len(), log.ends)
        };
        let subscriber = Subscriber {
            requests: request.into_inner(),
            begin,
            position: None,
            wanted: 0,
            log,
            ends,
            rpc_id,
        };
        // From here on the session is not checked again: a stream outlives its session.
        let responses = stream::try_unfold(subscriber, Subscriber::next);
        Ok(Response::new(Box::pin(responses)))
    }
}

/// One call of Subscribe.
struct Subscriber {
    requests: Streaming<FetchRequest>,
    /// The length of the log at the call.
    begin: usize,
    /// The topic, and the position in the log. `None` before the first request.
    position: Option<(String, usize)>,
    /// The number of events that the client still wants.
    wanted: usize,
    log: watch::Receiver<Log>,
    ends: u64,
    rpc_id: String,
}

impl Subscriber {
    async fn next(mut self) -> Result<Option<(FetchResponse, Self)>, Status> {
        loop {
            if let Some(response) = self.fetch()? {
                return Ok(Some((response, self)));
            }
            tokio::select! {
                request = self.requests.message() => match request? {
                    Some(request) => self.take(request)?,
                    None => return Ok(None),
                },
                // The subscriber keeps the bus alive, so this cannot fail.
                _ = self.log.changed() => {}
            }
        }
    }

    fn take(&mut self, request: FetchRequest) -> Result<(), Status> {
        self.wanted += usize::try_from(request.num_requested)
            .map_err(|_| Status::invalid_argument("num_requested is negative"))?;
        if self.position.is_none() {
            let position = match request.replay_preset() {
                ReplayPreset::Latest => self.begin,
                ReplayPreset::Earliest => 0,
                ReplayPreset::Custom => position(&request.replay_id)
                    .filter(|position| *position <= self.begin)
                    .ok_or_else(|| Status::invalid_argument("replay_id is none of this topic"))?,
            };
            self.position = Some((request.topic_name, position));
        }
        Ok(())
    }

    /// The next events for the subscriber. `None` if there are no events yet.
    fn fetch(&mut self) -> Result<Option<FetchResponse>, Status> {
        let log = self.log.borrow_and_update();
        let Some((topic, position)) = &mut self.position else {
            return Ok(None);
        };
        let mut events = Vec::new();
        while let Some((of, event)) = log.events.get(*position)
            && events.len() < self.wanted
        {
            *position += 1;
            if of == topic {
                events.push(ConsumerEvent {
                    event: Some(event.clone()),
                    replay_id: replay_id(*position),
                });
            }
        }
        if events.is_empty() {
            return match &log.end {
                Some(end) if log.ends != self.ends => Err(end.clone()),
                _ => Ok(None),
            };
        }
        self.wanted -= events.len();
        Ok(Some(FetchResponse {
            events,
            latest_replay_id: replay_id(*position),
            rpc_id: self.rpc_id.clone(),
            pending_num_requested: self.wanted.try_into().unwrap_or(i32::MAX),
        }))
    }
}

fn replay_id(position: usize) -> Vec<u8> {
    position.to_be_bytes().to_vec()
}

fn position(replay_id: &[u8]) -> Option<usize> {
    Some(usize::from_be_bytes(replay_id.try_into().ok()?))
}
