//! An org for the processes of other terminals.

use std::{
    hash::{BuildHasher, RandomState},
    net::Ipv4Addr,
    time::Duration,
};

use tokio::{signal::ctrl_c, time::sleep};
use tower_salesforce_auth::{BoxError, emulator::Org};

use crate::options::Options;

const SESSION: Duration = Duration::from_secs(5);

/// Serves until Ctrl-C, and ends the session again and again.
pub(crate) async fn serve(options: &Options) -> Result<(), BoxError> {
    let org = Org::new();
    let port = options.port;
    let served = org.serve_on((Ipv4Addr::LOCALHOST, port)).await;
    let served = served.map_err(|error| {
        format!("Cannot listen on port {port} of 127.0.0.1: {error}. --port chooses another.")
    })?;
    println!(
        "In each other terminal:\n\n  export SF_LOGIN_URL={} SF_CLIENT_ID={} SF_CLIENT_SECRET={} SF_REFRESH_TOKEN={} FLEET_RUN={:x}\n  \
         cargo run -p fleet -- join redis://127.0.0.1\n",
        org.login_url(),
        org.client_id(),
        org.client_secret(),
        org.authorize().refresh_token(),
        RandomState::new().hash_one(port),
    );
    let expiring = async {
        loop {
            sleep(SESSION).await;
            org.expire_sessions();
            let counters = org.counters();
            println!(
                "{} requests, {} exchanges, {} refresh tokens presented twice. The session expires.",
                counters.data_accepted, counters.tokens_issued, counters.refresh_token_reuses
            );
        }
    };
    tokio::select! {
        stopped = ctrl_c() => stopped?,
        () = expiring => {}
    }
    served.shutdown().await;
    Ok(())
}
