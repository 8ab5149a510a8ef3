//! Parts that several fuzz targets share.

pub mod input;
pub mod model;
