//! By type: every request runs in the pool that the layer's marker names.

use super::{Select, Target};
use crate::workload::Marker;

impl<M: Marker, Req> Select<Req> for M {
    fn select(&self, _request: &Req, own: &Target) -> Target {
        own.clone()
    }
}
