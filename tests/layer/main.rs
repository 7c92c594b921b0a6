//! The layer on real services: what runs where, what stays as it was, and what a caller is told.

mod axum_places;
mod contract;
mod fixtures;
mod rejections;
mod selection;
