//! Selection of one pool for every request.

use super::{Select, Selection, Target};

/// Selects the same pool for every request; made by [`PoolLayer::new`](crate::PoolLayer::new) and
/// [`PoolLayer::for_pool`](crate::PoolLayer::for_pool).
#[derive(Clone, Debug)]
pub struct Fixed {
    target: Target,
}

impl Fixed {
    pub(crate) const fn new(target: Target) -> Self {
        Self { target }
    }
}

impl<Req> Select<Req> for Fixed {
    fn select(&self, _request: &Req) -> Selection {
        Selection::new(self.target.clone())
    }
}
