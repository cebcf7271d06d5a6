//! A subscription that goes on where it was when its stream ends.

use bytes::Bytes;
use futures_util::stream;
use tokio::sync::mpsc;
use tonic::{
    Status, Streaming,
    body::Body,
    client::GrpcService,
    codegen::{Body as HttpBody, StdError},
};

use super::eventbus::{
    ConsumerEvent, FetchRequest, FetchResponse, ReplayPreset, pub_sub_client::PubSubClient,
};

/// How many events to ask for at a time. The API gives up to 100.
const BATCH: i32 = 100;

/// The events of a topic, over as many calls of Subscribe as it takes.
///
/// A session that expires does not end a stream. But streams end, by a server that restarts or a connection that breaks,
/// and then the call that takes up the thread meets the session that has died meanwhile: it is rejected before its
/// first message, which the layer sees, renews the session, and sends the call again.
///
/// What ends a stream after its first message comes with the trailers, and reaches the caller of the stream: nothing
/// below could begin it anew, since nobody there knows where it was. Here somebody does.
pub(crate) struct Subscription<S> {
    client: PubSubClient<S>,
    topic_name: String,
    /// After which event to go on. None: with what is published from now on.
    replay_id: Option<Vec<u8>>,
    call: Option<Call>,
}

struct Call {
    requests: mpsc::Sender<FetchRequest>,
    responses: Streaming<FetchResponse>,
    /// Whether it ever brought a message.
    is_alive: bool,
}

impl<S> Subscription<S>
where
    S: GrpcService<Body>,
    S::Error: Into<StdError>,
    S::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <S::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    /// The events after this one; without one, those that are published from now on.
    pub(crate) fn new(
        client: PubSubClient<S>,
        topic_name: impl Into<String>,
        replay_id: Option<Vec<u8>>,
    ) -> Self {
        Self {
            client,
            topic_name: topic_name.into(),
            replay_id,
            call: None,
        }
    }

    /// Subscribes, unless that was done.
    pub(crate) async fn begin(&mut self) -> Result<(), Status> {
        if self.call.is_none() {
            self.call = Some(self.subscribe().await?);
        }
        Ok(())
    }

    /// Waits for the next events. Nothing is lost if it is dropped before that.
    ///
    /// A stream that ends is taken up by another call. A call that brought nothing is not: its status is returned. (A
    /// program that is to run for days would wait, longer each time, and try that again, too.)
    pub(crate) async fn next(&mut self) -> Result<Vec<ConsumerEvent>, Status> {
        loop {
            self.begin().await?;
            let Some(call) = &mut self.call else { continue };
            match call.responses.message().await {
                Ok(Some(response)) => {
                    call.is_alive = true;
                    // Ask for more only when all is here that was asked for: that is how a subscriber sets the pace.
                    if response.pending_num_requested == 0 {
                        let more = FetchRequest {
                            topic_name: self.topic_name.clone(),
                            num_requested: BATCH,
                            ..FetchRequest::default()
                        };
                        // If nobody takes it, the stream is over, and the next message says so.
                        let _ = call.requests.try_send(more);
                    }
                    // It moves on without events, too, when those that passed were for others.
                    self.replay_id = Some(response.latest_replay_id);
                    if !response.events.is_empty() {
                        return Ok(response.events);
                    }
                }
                ended => {
                    let was_alive = call.is_alive;
                    self.call = None;
                    match ended {
                        _ if was_alive => {}
                        Err(status) => return Err(status),
                        Ok(_) => return Err(Status::unavailable("the stream ended at once")),
                    }
                }
            }
        }
    }

    async fn subscribe(&mut self) -> Result<Call, Status> {
        let (preset, replay_id) = match &self.replay_id {
            Some(replay_id) => (ReplayPreset::Custom, replay_id.clone()),
            None => (ReplayPreset::Latest, Vec::new()),
        };
        let (requests, mut to_send) = mpsc::channel(4);
        let first = FetchRequest {
            topic_name: self.topic_name.clone(),
            replay_preset: preset.into(),
            replay_id,
            num_requested: BATCH,
            ..FetchRequest::default()
        };
        // There is room for it, and somebody who takes it.
        let _ = requests.try_send(first);
        // The client's side of the call: open for as long as `requests` is there. The layer keeps the messages of it until
        // the call is accepted, and sends them again if it is not.
        let to_send = stream::poll_fn(move |cx| to_send.poll_recv(cx));
        let responses = self.client.subscribe(to_send).await?.into_inner();
        Ok(Call {
            requests,
            responses,
            is_alive: false,
        })
    }
}
