//! Parts that several fuzz targets share.

pub mod input;
pub mod mesh_seeds;
pub mod model;
