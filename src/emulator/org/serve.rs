//! The org on loopback.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use super::Org;
use crate::emulator::server::{self, Served};

impl Org {
    /// Serves the org on a free port of 127.0.0.1, HTTP/1.1 and HTTP/2 (with prior knowledge) on
    /// the same one.
    ///
    /// From then on the instance URL and the login URL are `http://127.0.0.1:PORT`. Tokens issued
    /// earlier stay good. An org can be served more than once; the newest URL is then the org's.
    ///
    /// # Errors
    ///
    /// Whatever binding the socket yields.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime that has I/O enabled.
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

    /// Serves the org on an address of choice; otherwise as [`serve`](Self::serve) does.
    ///
    /// # Errors
    ///
    /// Whatever binding the socket yields; [`io::ErrorKind::AddrInUse`] if somebody else has the
    /// port. [`io::ErrorKind::InvalidInput`] if the address is not a loopback address: the org's
    /// secrets are no secrets, and there is no TLS.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime that has I/O enabled.
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
        Ok(server::serve(listener, url, self.clone(), accepted))
    }
}
