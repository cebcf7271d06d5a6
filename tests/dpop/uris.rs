//! The method and the URI in a proof are those of the request as it is sent.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_salesforce_auth::{
    SalesforceAuthLayer, Session, SessionHandle, emulator::Org, flow::ClientCredentials,
    oauth::DpopKey,
};

use crate::support::{LIMITS, Proof, answer, bound_app, recorded, requiring_org, scripted, whole};

/// A handle with a bound session of this instance, and one allowed origin.
fn handle(instance: &str) -> SessionHandle {
    let session = Session::new("T0", instance).unwrap();
    let session = session.with_dpop_key(DpopKey::generate().unwrap());
    SessionHandle::builder(async |_| unreachable!("no refresh"))
        .initial_session(session)
        .allow_origin("https://api.salesforce.com".parse().unwrap())
        .build()
}

#[tokio::test]
async fn r35_a_proof_names_the_uri_that_is_sent() {
    let name = "https://mydomainname.my.salesforce.com";
    for (instance, uri, expected) in [
        (name, "/a?b=c", "https://mydomainname.my.salesforce.com/a"),
        (name, "/", "https://mydomainname.my.salesforce.com/"),
        (name, "/?q=1", "https://mydomainname.my.salesforce.com/"),
        (
            name,
            "/a%2fb%20/../ü;x=1?%3f",
            "https://mydomainname.my.salesforce.com/a%2fb%20/../ü;x=1",
        ),
        (
            name,
            "HTTPS://MyDomainName.My.Salesforce.com:443/A/?b#c",
            "https://mydomainname.my.salesforce.com/A/",
        ),
        (
            name,
            "https://user:pass@mydomainname.my.salesforce.com/a",
            "https://mydomainname.my.salesforce.com/a",
        ),
        (
            name,
            "https://API.salesforce.com/einstein?x",
            "https://api.salesforce.com/einstein",
        ),
        (
            "https://mydomainname.my.salesforce.com:8443",
            "/a",
            "https://mydomainname.my.salesforce.com:8443/a",
        ),
        ("http://[::1]:8080", "/a?b", "http://[::1]:8080/a"),
        ("http://[::1]:80", "http://[::1]:80/a", "http://[::1]/a"),
        ("http://LOCALHOST", "/a", "http://localhost/a"),
    ] {
        let (client, requests) = scripted(|_, _| answer(200, &[], ""));
        let layer = SalesforceAuthLayer::from(handle(instance));
        for method in [Method::GET, Method::from_bytes(b"pAtch").unwrap()] {
            let request = Request::builder().method(method.clone()).uri(uri);
            let request = request.body(Full::<Bytes>::default()).unwrap();
            let service = layer.layer(whole(client.clone()));
            service.oneshot(request).await.unwrap();
            let request = requests.take().pop().unwrap();
            let proof = Proof::of(request.headers());
            assert_eq!(proof.claim("htu"), expected, "{uri}");
            assert_eq!(proof.claim("htm"), method.as_str());
        }
    }
}

#[tokio::test]
async fn r35_no_proof_goes_to_another_host() {
    let (client, requests) = scripted(|_, _| answer(200, &[], ""));
    let layer = SalesforceAuthLayer::from(handle("https://mydomainname.my.salesforce.com"));
    for uri in [
        "https://example.com/",
        "http://mydomainname.my.salesforce.com/",
        "https://mydomainname.my.salesforce.com:8443/",
        "https://mydomainname.my.salesforce.com.example.com/",
        "https://mydomainname.my.salesforce.com@example.com/",
    ] {
        let request = Request::get(uri).body(Full::<Bytes>::default()).unwrap();
        let service = layer.layer(whole(client.clone()));
        service.oneshot(request).await.unwrap();
        let request = requests.take().pop().unwrap();
        for name in ["dpop", "authorization"] {
            assert!(!request.headers().contains_key(name), "{uri}");
        }
    }
}

#[tokio::test]
async fn r35_each_hop_outside_of_the_layer_has_its_own_proof() {
    let (client, requests) = scripted(|head, _| {
        let next: Option<&[u8]> = match head.uri.path() {
            "/a" => Some(b"/b"),
            "/b" => Some(b"https://example.com/c"),
            _ => None,
        };
        match next {
            Some(next) => answer(303, &[("location", next)], ""),
            None => answer(200, &[], ""),
        }
    });
    let service = ServiceBuilder::new()
        .layer(FollowRedirectLayer::new())
        .layer(SalesforceAuthLayer::from(handle(
            "https://mydomainname.my.salesforce.com",
        )))
        .service(whole(client));
    let request = Request::post("https://mydomainname.my.salesforce.com/a");
    let request = request.body(Full::<Bytes>::from("body")).unwrap();
    assert_eq!(
        service.oneshot(request).await.unwrap().status(),
        StatusCode::OK
    );
    let requests = requests.take();
    let [first, second, foreign] = &requests[..] else {
        panic!("{requests:?}");
    };
    for (request, method) in [(first, "POST"), (second, "GET")] {
        let proof = Proof::of(request.headers());
        assert_eq!(proof.claim("htm"), method);
        assert_eq!(proof.claim("htu"), request.uri().to_string());
    }
    assert!(!foreign.headers().contains_key("dpop"));
}

#[tokio::test]
async fn r35_the_org_takes_proofs_of_unusual_uris() {
    let org = requiring_org();
    let layer = SalesforceAuthLayer::new(ClientCredentials::new(org.clone(), bound_app(&org).0));
    let (client, _) = recorded(org.clone());
    let host = Org::new().instance_url().replace("https://", "");
    for uri in [
        format!("https://{}:443{LIMITS}?a=b", host.to_uppercase()),
        format!("https://user@{host}{LIMITS}"),
    ] {
        let request = Request::get(uri).body(Full::<Bytes>::default()).unwrap();
        let answer = layer
            .layer(whole(client.clone()))
            .oneshot(request)
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }
    assert_eq!(org.counters().dpop_proofs_refused, 0);
}
