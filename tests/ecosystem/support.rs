//! Servers and callers for the tests of HTTP clients.

use std::{
    net::Ipv4Addr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Barrier,
};

/// A server that redirects to a listener, which never answers.
pub(crate) async fn redirecting_server() -> (String, TcpListener) {
    let target = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let location = format!("http://{}/", target.local_addr().unwrap());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
        let answer =
            format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
    (url, target)
}

/// Holds the first requests until this many have come, so that all of them meet the expired session.
pub(crate) fn all_at_once<F>(
    callers: u32,
) -> impl Fn(F) -> Pin<Box<dyn Future<Output = F::Output> + Send>> + Clone + Send + Sync + 'static
where
    F: Future + Send + 'static,
{
    let callers = callers as usize;
    let barrier = Arc::new(Barrier::new(callers));
    let arrived = Arc::new(AtomicUsize::new(0));
    move |sending| {
        let is_first_attempt = arrived.fetch_add(1, Ordering::Relaxed) < callers;
        let barrier = Arc::clone(&barrier);
        Box::pin(async move {
            if is_first_attempt {
                barrier.wait().await;
            }
            sending.await
        })
    }
}

pub(crate) async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = stream.read_u8().await.unwrap();
        head.push(byte);
    }
    String::from_utf8(head).unwrap()
}
