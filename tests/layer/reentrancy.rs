//! Refreshes that send requests through their own layer (R13).

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tower::{Layer, ServiceExt, util::BoxCloneSyncService};
use tower_salesforce_auth::{
    BoxError, Error, ErrorKind, RefreshContext, RefreshError, SalesforceAuth, SalesforceAuthLayer,
    layer::ResponseBody, request::SkipAuth,
};

use crate::support::{Api, get, kind, layer_error, send, session, starting_with};

type Statuses = BoxCloneSyncService<Request<Full<Bytes>>, StatusCode, BoxError>;

/// The service in a box, so that its own refresh can hold it.
fn statuses_of(service: &SalesforceAuth<Api>) -> Statuses {
    let status = |response: Response<ResponseBody<Full<Bytes>>>| response.status();
    BoxCloneSyncService::new(ServiceExt::<Request<Full<Bytes>>>::map_response(
        service.clone(),
        status,
    ))
}

#[tokio::test]
async fn r13_a_refresh_through_its_own_layer_is_reentrant() {
    let api = Api::accepting("T1");
    let refreshes = Arc::new(AtomicUsize::new(0));
    let (service_tx, service_rx) = tokio::sync::watch::channel(None);
    let layer = {
        let refreshes = refreshes.clone();
        starting_with(session("T0"), move |_: RefreshContext| {
            let n = refreshes.fetch_add(1, Ordering::SeqCst) + 1;
            let service = service_rx.borrow().clone();
            async move {
                if n == 1 {
                    let service: Statuses = service.expect("the service");
                    service
                        .oneshot(get("/services/oauth2/userinfo"))
                        .await
                        .map_err(RefreshError::transient)?;
                }
                Ok(session("T1"))
            }
        })
    };
    let service = layer.layer(api.clone());
    service_tx.send_replace(Some(statuses_of(&service)));

    let error = send(&service, get("/services/data/")).await.unwrap_err();

    assert_eq!(kind(&error), Some(ErrorKind::Refresh));
    let mut causes = layer_error(&error).causes();
    let nested = causes.find_map(|error| error.downcast_ref::<Error>());
    assert_eq!(nested.map(Error::kind), Some(ErrorKind::Reentrant));

    let response = send(&service, get("/services/data/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(refreshes.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn r13_a_refresh_cycle_of_two_sessions_is_reentrant() {
    // The refresh of A asks B for its session, whose refresh asks A.
    let api = Api::accepting("nothing");
    let handles = Arc::new(std::sync::OnceLock::<
        [tower_salesforce_auth::SessionHandle; 2],
    >::new());
    let ask = |other: usize| {
        let handles = handles.clone();
        move |_: RefreshContext| {
            let handles = handles.clone();
            async move {
                let other = &handles.get().expect("both handles")[other];
                let live = other.session().await.map_err(RefreshError::transient)?;
                Ok(tower_salesforce_auth::Session::clone(&live))
            }
        }
    };
    let a = tower_salesforce_auth::SessionHandle::new(ask(1));
    let b = tower_salesforce_auth::SessionHandle::new(ask(0));
    assert!(handles.set([a.clone(), b]).is_ok());
    let service = SalesforceAuthLayer::from(a).layer(api);

    let error = send(&service, get("/services/data/")).await.unwrap_err();

    let causes = layer_error(&error).causes();
    let mut nested = causes.filter_map(|error| error.downcast_ref::<Error>());
    assert!(nested.any(|error| error.kind() == ErrorKind::Reentrant));
}

#[tokio::test]
async fn r13_a_request_that_skips_auth_passes_during_a_refresh() {
    let api = Api::accepting("T1");
    let (service_tx, service_rx) = tokio::sync::watch::channel(None);
    let layer = starting_with(session("T0"), move |_: RefreshContext| {
        let service = service_rx.borrow().clone();
        async move {
            let service: Statuses = service.expect("the service");
            let mut request = get("https://login.salesforce.com/services/oauth2/token");
            request.extensions_mut().insert(SkipAuth);
            let status = service
                .oneshot(request)
                .await
                .map_err(RefreshError::transient)?;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "passed on, and answered");
            Ok(session("T1"))
        }
    });
    let service = layer.layer(api.clone());
    service_tx.send_replace(Some(statuses_of(&service)));

    let response = send(&service, get("/services/data/")).await.unwrap();

    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(api.tokens(), ["T0", "", "T1"]);
}
