//! A subscription that resumes after its last event when its stream ends.

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

/// The events to request at a time. The API sends up to 100.
const BATCH: i32 = 100;

/// The events of a topic, over any number of Subscribe calls.
///
/// An expired session does not end a stream. But a restart of the server or a broken connection does. The next call then
/// has an expired session, and is rejected before its first message. The layer refreshes the session, and replays the call.
///
/// An error after the first message comes with the trailers, and goes to the caller of the stream. The layer cannot resume the
/// stream, since it does not know the last event. This type does.
pub(crate) struct Subscription<S> {
    client: PubSubClient<S>,
    topic_name: String,
    /// The last event seen. `None` to begin with events published from now on.
    replay_id: Option<Vec<u8>>,
    call: Option<Call>,
}

struct Call {
    requests: mpsc::Sender<FetchRequest>,
    responses: Streaming<FetchResponse>,
    /// Whether a message has come.
    is_alive: bool,
}

impl<S> Subscription<S>
where
    S: GrpcService<Body>,
    S::Error: Into<StdError>,
    S::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <S::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    /// A subscription after this event, or `None` for events published from now on.
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

    /// Subscribes, if there is no open call.
    pub(crate) async fn begin(&mut self) -> Result<(), Status> {
        if self.call.is_none() {
            self.call = Some(self.subscribe().await?);
        }
        Ok(())
    }

    /// Waits for the next events. Dropping the future loses no event.
    ///
    /// When a stream ends, the next call resumes it. After a call without a message, its status is returned. (A program that
    /// runs for days would retry that as well, after longer and longer pauses.)
    pub(crate) async fn next(&mut self) -> Result<Vec<ConsumerEvent>, Status> {
        loop {
            self.begin().await?;
            let Some(call) = &mut self.call else { continue };
            match call.responses.message().await {
                Ok(Some(response)) => {
                    call.is_alive = true;
                    // Request more only when all requested events have come: so the subscriber sets the pace.
                    if response.pending_num_requested == 0 {
                        let more = FetchRequest {
                            topic_name: self.topic_name.clone(),
                            num_requested: BATCH,
                            ..FetchRequest::default()
                        };
                        // An error means that the stream has ended; the next message reports it.
                        let _ = call.requests.try_send(more);
                    }
                    // It also advances without events, past those of other topics.
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
        // The channel is new, so there is room.
        let _ = requests.try_send(first);
        // The client's side of the call, open until `requests` is dropped. The layer keeps its messages until the call is
        // accepted, and replays them after a rejection.
        let to_send = stream::poll_fn(move |cx| to_send.poll_recv(cx));
        let responses = self.client.subscribe(to_send).await?.into_inner();
        Ok(Call {
            requests,
            responses,
            is_alive: false,
        })
    }
}
