//! SVG to PNG. The SVG is the one drawing; this only rasterises it, with DejaVu Sans from the binary itself, so that the
//! same picture comes out on a machine without any font.

use super::{DrawError, refused};
use resvg::{tiny_skia, usvg};
use std::sync::Arc;

pub fn png(svg: &str, scale: f32) -> Result<Vec<u8>, DrawError> {
    let mut options = usvg::Options::default();
    let fonts = Arc::make_mut(&mut options.fontdb);
    fonts.load_font_data(dejavu::sans::regular().to_vec());
    fonts.set_sans_serif_family("DejaVu Sans");
    options.font_family = "DejaVu Sans".to_string();
    let tree = usvg::Tree::from_str(svg, &options).map_err(refused)?;
    let size = tree
        .size()
        .to_int_size()
        .scale_by(scale)
        .ok_or_else(|| refused("the picture is too small"))?;
    let mut pixels =
        tiny_skia::Pixmap::new(size.width(), size.height()).ok_or_else(|| refused("the picture is too large"))?;
    resvg::render(
        &tree,
        tiny_skia::Transform::from_scale(scale, scale),
        &mut pixels.as_mut(),
    );
    pixels.encode_png().map_err(refused)
}
