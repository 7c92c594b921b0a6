//! [`Dashboard`]: a live page of the pools, as a Tower service.
//!
//! ```
//! use axum::Router;
//! use tower_offload::{Dashboard, Pools};
//!
//! let pools = Pools::default();
//! let app: Router = Router::new().nest_service("/pools", Dashboard::new(&pools));
//! ```
//!
//! A file imports only from files that stand before it in this table:
//!
//! | file | contents |
//! |---|---|
//! | `text` | numbers as people read them; HTML's escapes |
//! | `series` | ten minutes of a pool, point by point |
//! | `state` | the state of a pool in words |
//! | `view` | everything that the page shows, as texts |
//! | `page`, `event` | these texts as HTML, and as server-sent events |
//! | `board` | the one sampler of all viewers |
//! | `body`, `service` | the bodies of responses; the service |

mod board;
mod body;
mod event;
mod page;
mod series;
mod service;
mod state;
mod text;
mod view;

pub use self::body::DashboardBody;
pub use self::service::Dashboard;
