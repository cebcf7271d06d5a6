//! Is this response the end of a session?
//!
//! [`SalesforceClassifier`] knows what the APIs answer:
//!
//! | [`Api`] | answer | verdict |
//! |---|---|---|
//! | any | 401, whatever its body, or none that can be read | [`Expired`](Verdict::Expired) |
//! | any | 401 with one of the [texts](SalesforceClassifier::incurable) that no refresh cures | [`Incurable`](Verdict::Incurable) |
//! | `Bulk` | 400 `InvalidSessionId`, in XML or JSON | `Expired` |
//! | `Soap` | 500 with the fault code `INVALID_SESSION_ID` | `Expired` |
//! | `Soap` | the same with one of those texts, or to a session whose token [is a JWT](crate::Session::is_jwt) | `Incurable` |
//! | `Identity` | 403 `Bad_OAuth_Token` | `Expired` |
//! | `Grpc` | the status `UNAUTHENTICATED` (16), if it comes with the headers | `Expired` |
//! | any | anything else | [`Pass`](Verdict::Pass) |
//!
//! Only a 401, and a 400, 403 or 500 of the API that says `Expired` by it, has its body looked into: up to 64 KiB, for up
//! to 5 s, and no further than it takes. The caller gets it whole, byte for byte. Any other answer passes by its status.
//!
//! What is answered with a 200 is not looked into: an error in a `CometD` message, or in gRPC trailers that come after a
//! message.
//!
//! # Another text
//!
//! A 401 that another policy of the org causes can be known by its text:
//!
//! ```
//! use tower_salesforce_auth::{SalesforceAuthLayer, Session, verdict::SalesforceClassifier};
//!
//! let session = Session::new("00Dxx!AQEAQ", "https://MyDomainName.my.salesforce.com")?;
//! let layer = SalesforceAuthLayer::with_session(session)
//!     .classifier(SalesforceClassifier::new().incurable("blocked by the transaction security policy"));
//! # Ok::<_, tower_salesforce_auth::Error>(())
//! ```
//!
//! # Another classifier
//!
//! One for a gateway before the org, which says 440 for a session that timed out:
//!
//! ```
//! use http::{Response, StatusCode};
//! use tower_salesforce_auth::verdict::{
//!     Api, Classify, Extent, ResponseHead, SalesforceClassifier, Verdict,
//! };
//!
//! struct Gateway(SalesforceClassifier);
//!
//! impl Classify for Gateway {
//!     fn classify_head(&self, head: &ResponseHead<'_>) -> Option<Verdict> {
//!         match head.status().as_u16() {
//!             440 => Some(Verdict::Expired),
//!             _ => self.0.classify_head(head),
//!         }
//!     }
//!
//!     fn classify_body(&self, head: &ResponseHead<'_>, body: &[u8], extent: Extent) -> Option<Verdict> {
//!         self.0.classify_body(head, body, extent)
//!     }
//! }
//!
//! let gateway = Gateway(SalesforceClassifier::new());
//! let timed_out = Response::builder().status(440).body(())?;
//! let head = ResponseHead::new(Api::Rest, &timed_out);
//! assert_eq!(gateway.classify_head(&head), Some(Verdict::Expired));
//!
//! let expired = Response::builder().status(StatusCode::UNAUTHORIZED).body(())?;
//! let head = ResponseHead::new(Api::Rest, &expired);
//! assert_eq!(gateway.classify_head(&head), None, "the body decides");
//! assert_eq!(gateway.classify_body(&head, b"", Extent::Whole), Some(Verdict::Expired));
//! # Ok::<_, http::Error>(())
//! ```

mod api;
mod classifier;
mod classify;
mod salesforce;

pub use api::Api;
pub(crate) use classifier::Classifier;
pub use classify::{Classify, Extent, ResponseHead, Verdict};
pub use salesforce::SalesforceClassifier;
