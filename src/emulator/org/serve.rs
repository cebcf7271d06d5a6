//! The org on loopback. The requests go to the `Service` implementation in `service.rs`.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use super::Org;
use crate::emulator::server::{self, Plain, Served};

impl Org {
    /// Serves the org on a free port of 127.0.0.1. The port speaks HTTP/1.1 and HTTP/2 (with prior
    /// knowledge).
    ///
    /// The instance URL and the login URL change to `http://127.0.0.1:PORT`. Earlier tokens stay
    /// valid. If an org is served more than once, it has the newest URL.
    ///
    /// # Errors
    ///
    /// Those of binding the socket.
    ///
    /// # Panics
    ///
    /// If called outside of a tokio runtime with I/O enabled.
    ///
    /// ```
    /// use http::Request;
    /// use http_body_util::Empty;
    /// use hyper_util::client::legacy::Client;
    /// use hyper_util::rt::TokioExecutor;
    /// use tower_salesforce_auth::emulator::Org;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    /// let org = Org::new();
    /// let served = org.serve().await?;
    ///
    /// let client = Client::builder(TokioExecutor::new()).build_http();
    /// let request = Request::get(format!("{}/services/data/", served.url()))
    ///     .body(Empty::<bytes::Bytes>::new())?;
    /// assert_eq!(client.request(request).await?.status(), 200);
    ///
    /// served.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn serve(&self) -> io::Result<Served> {
        self.serve_on((Ipv4Addr::LOCALHOST, 0)).await
    }

    /// Serves the org on the given address. Otherwise, it works like [`serve`](Self::serve).
    ///
    /// # Errors
    ///
    /// Those of binding the socket, for example [`io::ErrorKind::AddrInUse`] if the port is taken.
    /// [`io::ErrorKind::InvalidInput`] if the address is not a loopback address, because the org
    /// has no TLS and no real secrets.
    ///
    /// # Panics
    ///
    /// If called outside of a tokio runtime with I/O enabled.
    ///
    /// ```
    /// use std::net::Ipv6Addr;
    /// use tower_salesforce_auth::emulator::Org;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let refused = Org::new().serve_on((Ipv6Addr::UNSPECIFIED, 8443)).await;
    /// assert!(refused.is_err());
    /// # }
    /// ```
    #[expect(
        clippy::unused_async,
        reason = "listening needs a runtime, and an async function is called where there is one"
    )]
    pub async fn serve_on(&self, address: impl Into<SocketAddr>) -> io::Result<Served> {
        let listener = server::listen(address.into())?;
        let url = format!("http://{}", listener.local_addr()?);
        {
            let mut state = self.state();
            state.instance_url.clone_from(&url);
            state.login_url.clone_from(&url);
        }
        let org = self.clone();
        let accepted = move || org.state().counters.connections += 1;
        server::serve(listener, url, self.clone(), Plain, accepted)
    }
}
