//! A reader of the stream: keeps a place now and then, is killed at random moments, and goes on from the place that it
//! kept. It remembers everything that it was told, and judges nothing but what no gateway may answer.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tollgate::domain::cursor::Cursor;
use tollgate::proto::v1::SubscribeRequest;
use tollgate::proto::v1::event_service_client::EventServiceClient;
use tollgate::proto::v1::subscribe_request::Start;
use tollgate::proto::v1::subscribe_response::Item;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Endpoint;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use super::super::random::Random;
use super::compare::{Read, Sight, Stream};
use crate::rig::{TOKEN, Token, Wire};

/// One message in so many is the last of a reader's life.
const DIES_ONE_IN: u64 = 250;
/// One in so many such lives begins at the oldest event instead of the kept place.
const EARLIEST_ONE_IN: u64 = 12;
/// One message in so many is one that a reader takes long over.
const SLOW_ONE_IN: u64 = 400;
const SLOW_MS_MAX: u64 = 1_500;
/// A reader keeps its place after so many messages, at most.
const KEEPS_EVERY_MAX: u64 = 40;
/// Pause before a broken stream is opened again, at most.
pub(crate) const AGAIN_MS_MAX: u64 = 200;
/// A stream that is silent for so long is broken: the gateway shows signs of life every second.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(30);

/// A place in the log: position, and the cursor for it.
type Place = Option<(u64, String)>;

/// Someone who reads one stream after the other.
pub(crate) struct Reader {
    client: EventServiceClient<Wire>,
    random: Random,
    read: Read,
    /// Up to where it has read, and up to where it knows so after its death.
    place: Place,
    kept: Place,
    keeps_in: u64,
}

impl Reader {
    pub(crate) fn new(number: usize, grpc: SocketAddr, types: &[&str], random: Random) -> Self {
        let types = types.iter().map(ToString::to_string).collect();
        let read = Read { name: format!("reader {number}"), types, ..Read::default() };
        Self { client: client(grpc), random, read, place: None, kept: None, keeps_in: 0 }
    }

    /// Reads until it has come up to the head that it is told at the end, for which it is given so much time.
    pub(crate) async fn run(mut self, mut end: watch::Receiver<Option<u64>>, patience: Duration) -> Read {
        let mut until: Option<Instant> = None;
        loop {
            let head = *end.borrow_and_update();
            if let Some(head) = head {
                let until = *until.get_or_insert_with(|| Instant::now() + patience);
                let at = self.place.as_ref().map_or(0, |(position, _)| *position);
                // One that never comes up to it has not seen what the comparison then misses.
                if at >= head || Instant::now() > until {
                    return self.read;
                }
            }
            self.follow(&mut end).await;
            tokio::time::sleep(self.random.pause(AGAIN_MS_MAX)).await;
        }
    }

    /// Reads one stream until it breaks, the reader dies, or the end.
    async fn follow(&mut self, end: &mut watch::Receiver<Option<u64>>) {
        let after = self.place.as_ref().map_or(0, |(position, _)| *position);
        let start = match &self.place {
            Some((_, cursor)) => Start::AfterCursor(cursor.clone()),
            None => Start::Earliest(true),
        };
        let request = SubscribeRequest {
            types: self.read.types.clone(),
            start: Some(start),
            ..SubscribeRequest::default()
        };
        let mut stream = match self.client.subscribe(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => return self.broken(&status),
        };
        self.read.streams.push(Stream { after, sights: Vec::new() });
        loop {
            tokio::select! {
                item = next(&mut stream) => match item {
                    Ok(item) => self.take(item),
                    Err(status) => return self.ended(&status),
                },
                _ = end.changed() => {}
            }
            let at = self.place.as_ref().map_or(0, |(position, _)| *position);
            if end.borrow().is_some_and(|head| at >= head) {
                return;
            }
            if self.random.below(SLOW_ONE_IN) == 0 {
                tokio::time::sleep(self.random.pause(SLOW_MS_MAX)).await;
            }
            if end.borrow().is_none() && self.random.below(DIES_ONE_IN) == 0 {
                return self.die();
            }
        }
    }

    fn take(&mut self, item: Item) {
        let (sight, cursor) = match item {
            Item::Event(event) => (Sight::Event { position: event.position, id: event.id }, event.cursor),
            Item::Checkpoint(at) => (Sight::Mark { position: at.position }, at.cursor),
            Item::CaughtUp(at) => (Sight::Mark { position: at.position }, at.cursor),
        };
        let position = sight.position();
        if Cursor::decode(&cursor).ok().map(|cursor| cursor.position) != Some(position) {
            self.read.wrong.push(format!("the cursor `{cursor}` came with position {position}"));
        }
        self.read.streams.last_mut().unwrap().sights.push(sight);
        self.place = Some((position, cursor));
        if self.keeps_in == 0 {
            self.kept.clone_from(&self.place);
            self.keeps_in = self.random.below(KEEPS_EVERY_MAX);
        } else {
            self.keeps_in -= 1;
        }
    }

    /// What it has not kept is gone with it.
    fn die(&mut self) {
        self.read.deaths += 1;
        let all_gone = self.random.below(EARLIEST_ONE_IN) == 0;
        self.kept = self.kept.take().filter(|_| !all_gone);
        self.place.clone_from(&self.kept);
    }

    /// The end of an open stream: one that a gateway ends in peace goes on at the cursor that it tells.
    fn ended(&mut self, status: &Status) {
        let told = status.get_details_error_info().filter(|told| told.reason == "SHUTTING_DOWN");
        let cursor = told.and_then(|told| told.metadata.get("cursor").cloned());
        let position = cursor.as_ref().and_then(|cursor| Some(Cursor::decode(cursor).ok()?.position));
        match position.zip(cursor) {
            Some((position, cursor)) => {
                self.read.goodbyes += 1;
                self.read.streams.last_mut().unwrap().sights.push(Sight::Mark { position });
                self.place = Some((position, cursor));
            }
            None => {
                self.read.cut.push(format!("{:?} {}", status.code(), status.message()));
                self.broken(status);
            }
        }
    }

    fn broken(&mut self, status: &Status) {
        if !passing(status) {
            let place = self.place.take();
            self.read.wrong.push(format!("at {place:?}: {:?} {}", status.code(), status.message()));
            self.kept = None;
        }
    }
}

/// Whether a gateway that was killed explains it.
pub(crate) fn passing(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::Cancelled | Code::Unknown => true,
        // The transport has it for a connection that broke; the gateway's own faults say their reason.
        Code::Internal => status.get_details_error_info().is_none(),
        _ => false,
    }
}

async fn next(stream: &mut Streaming<tollgate::proto::v1::SubscribeResponse>) -> Result<Item, Status> {
    match timeout(SILENCE_MAX, stream.message()).await {
        Ok(Ok(Some(message))) => message.item.ok_or_else(|| Status::data_loss("a message without an item")),
        Ok(Ok(None)) => Err(Status::data_loss("a stream ended without a status")),
        Ok(Err(status)) => Err(status),
        Err(_) => Err(Status::deadline_exceeded("a stream was silent")),
    }
}

fn client(grpc: SocketAddr) -> EventServiceClient<Wire> {
    let channel = Endpoint::from_shared(format!("http://{grpc}")).unwrap().connect_lazy();
    EventServiceClient::new(InterceptedService::new(channel, Token(TOKEN)))
}

/// Position of the newest event.
pub(crate) async fn head(grpc: SocketAddr) -> u64 {
    let latest = SubscribeRequest { start: Some(Start::Latest(true)), ..SubscribeRequest::default() };
    let mut stream = client(grpc).subscribe(latest).await.unwrap().into_inner();
    loop {
        if let Item::CaughtUp(mark) = next(&mut stream).await.unwrap() {
            return mark.position;
        }
    }
}
