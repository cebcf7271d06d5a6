//! Instructions of a client for one request: counted by callgrind, with the server in another process.

use http::StatusCode;

use crate::{
    callgrind,
    clients::{Client, Contender, with_client},
    figures::grouped,
    loopback::{Protocol, current_thread},
    org::{Accepts, Org, PATH, Scene},
    page::Page,
    server_process::{self, ServerProcess},
};

/// The requests of the first of two runs, of which only the difference counts: connecting is no part of it.
const FEW: i64 = 100;

pub(crate) fn measure(requests: i64, page: &mut Page) {
    if !callgrind::is_there() {
        page.row(
            "client instructions of a GET: there is no valgrind here",
            |_| None,
        );
        return;
    }
    let server = ServerProcess::start();
    for protocol in Protocol::ALL {
        let count = |contender| count(&server.origin, contender, protocol, requests);
        let counts = Contender::ALL.map(count);
        let by_hand = counts[0];
        let name = format!("client instructions of a GET, {}", protocol.name());
        page.row(name, |contender| {
            let at = Contender::ALL.iter().position(|one| *one == contender)?;
            let added = counts[at] - by_hand;
            Some(match contender {
                Contender::TokenByHand => grouped(by_hand),
                _ if added < 0 => grouped(added),
                _ => format!("+{}", grouped(added)),
            })
        });
    }
}

/// Sends this many requests, one after the other. Runs under callgrind.
pub(crate) fn send(contender: &str, protocol: &str, origin: &str, requests: &str) {
    let contender: usize = contender.parse().expect("a number");
    let protocol = Protocol::ALL[protocol.parse::<usize>().expect("a number")];
    let requests: usize = requests.parse().expect("a number");
    with_client!(Contender::ALL[contender], C => send_all::<C>(protocol, origin, requests));
}

fn send_all<C: Client>(protocol: Protocol, origin: &str, requests: usize) {
    current_thread().block_on(async {
        let client = C::connect(origin, protocol).await.expect("a client");
        for _ in 0..requests {
            let status = client.get(PATH).await.expect("an answer");
            assert_eq!(status, StatusCode::OK);
        }
    });
}

pub(crate) fn serve() {
    let org = Org::serve(Scene {
        accepts: Accepts::All,
        ..Scene::default()
    });
    server_process::serve_until_input_ends(&org.origin());
}

/// The client's instructions for one request.
fn count(origin: &str, contender: Contender, protocol: Protocol, requests: i64) -> i64 {
    let at = Contender::ALL
        .iter()
        .position(|one| *one == contender)
        .expect("one of them");
    let which = Protocol::ALL
        .iter()
        .position(|one| *one == protocol)
        .expect("one of them");
    eprintln!("counting: {}, {}", contender.name(), protocol.name());
    let [few, many] = [FEW, FEW + requests].map(|requests| {
        let [at, which, requests] = [at.to_string(), which.to_string(), requests.to_string()];
        callgrind::count(None, &["--send", &at, &which, origin, &requests])
    });
    (many - few) / requests
}
