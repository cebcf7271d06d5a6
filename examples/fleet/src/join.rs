//! One process of a terminal.

use std::{env, time::Duration};

use tokio::{signal::ctrl_c, time::sleep};
use tower_salesforce_auth::BoxError;

use crate::{
    options::Options,
    shared_store::Place,
    worker::{Sender, Task},
};

const PAUSE: Duration = Duration::from_millis(100);

/// Sends ten requests per second until Ctrl-C, and tells of each new session.
pub(crate) async fn join(options: &Options) -> Result<(), BoxError> {
    let variable = |name: &str| {
        env::var(name).map_err(|_| {
            format!("{name} is not set: run `cargo run -p fleet -- org`, which prints it")
        })
    };
    let url = options.url.clone().ok_or(
        "there is no database: give the URL of a Redis, or set REDIS_URL. `redis-server` starts one",
    )?;
    let task = Task {
        login_url: variable("SF_LOGIN_URL")?,
        client_secret: variable("SF_CLIENT_SECRET")?,
        refresh_token: variable("SF_REFRESH_TOKEN")?,
        client_id: variable("SF_CLIENT_ID")?,
        // Another org has other records.
        prefix: format!("fleet-example:{}:", variable("FLEET_RUN")?),
        place: Place::Redis(url),
    };
    println!("The session is in {}.", task.place.describe());
    let sender = Sender::new(&task)?;
    let sending = async {
        let mut before = sender.counts.report();
        loop {
            sender.send().await;
            let now = sender.counts.report();
            if now.exchanges > before.exchanges {
                println!("This process has refreshed the session.");
            }
            if now.unrejected > before.unrejected {
                println!("This process has adopted a session before a request was rejected.");
            } else if now.adoptions > before.adoptions {
                println!("This process has adopted a session after a request was rejected.");
            }
            before = now;
            sleep(PAUSE).await;
        }
    };
    tokio::select! {
        stopped = ctrl_c() => stopped?,
        () = sending => {}
    }
    // What could not be saved is saved now.
    sender.handle.quiesce().await?;
    println!("{:?}", sender.counts.report());
    Ok(())
}
