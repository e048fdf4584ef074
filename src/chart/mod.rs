//! Pictures: what studies and surveys draw, as SVG and PNG. Colours can be told apart by the colour-blind, too (after Okabe and Ito).

mod curves;
mod page;
mod png;

pub use curves::{COLOURS, Curve, Mark, Panel, Panels, figure};
pub use page::{escaped, inline, page, table};
pub use png::{base64, encode};

use crate::error::{Error, Result};
use crate::store::write_file;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};
use std::path::Path;

const FONT: &str = "sans-serif";
/// Text.
pub const INK: RGBColor = RGBColor(34, 40, 49);
/// Axes and remarks.
pub const PALE: RGBColor = RGBColor(120, 128, 138);
/// Lines behind figures.
pub const GRID: RGBColor = RGBColor(228, 231, 235);
/// The first of things compared.
pub const BLUE: RGBColor = RGBColor(0, 95, 175);
/// What is wrong.
pub const RED: RGBColor = RGBColor(200, 60, 40);
/// The second of things compared.
pub const ORANGE: RGBColor = RGBColor(240, 180, 30);
/// Further ones.
pub const GREEN: RGBColor = RGBColor(0, 158, 115);
/// Likewise.
pub const VERMILION: RGBColor = RGBColor(213, 94, 0);
/// Likewise.
pub const PURPLE: RGBColor = RGBColor(204, 121, 167);
/// Likewise.
pub const SKY: RGBColor = RGBColor(86, 180, 233);
/// Likewise.
pub const OLIVE: RGBColor = RGBColor(140, 120, 60);
/// The rest.
pub const SILVER: RGBColor = RGBColor(190, 194, 200);

/// What is drawn on.
pub type Area<B> = DrawingArea<B, Shift>;
/// Whether that went well.
pub type Drawn<B> = std::result::Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

/// Something to be drawn on white.
pub trait Picture {
    /// Width and height in pixels.
    fn size(&self) -> (u32, u32);
    /// Draws it.
    fn draw<B: DrawingBackend>(&self, area: &Area<B>) -> Drawn<B>;
    /// Images that lie upon it.
    fn rasters(&self) -> &[Raster] {
        &[]
    }
}

/// An image as part of a picture: its pixels become squares.
#[derive(Debug, Clone, PartialEq)]
pub struct Raster {
    /// Its upper left corner.
    pub at: (i32, i32),
    /// Pixels of the picture to one of the image.
    pub scale: usize,
    /// Pixels in a row.
    pub width: usize,
    /// Red, green and blue of each pixel.
    pub rgb: Vec<u8>,
}

impl Raster {
    fn height(&self) -> usize {
        self.rgb.len() / (3 * self.width)
    }

    /// Onto the pixels of a picture.
    fn paint(&self, picture: &mut [u8], width: usize) {
        let (x, y) = (self.at.0.max(0) as usize, self.at.1.max(0) as usize);
        for (index, pixel) in self.rgb.chunks_exact(3).enumerate() {
            for row in 0..self.scale {
                let line = (y + index / self.width * self.scale + row) * width;
                let start = 3 * (line + x + index % self.width * self.scale);
                for to in picture[start..start + 3 * self.scale].chunks_exact_mut(3) {
                    to.copy_from_slice(pixel);
                }
            }
        }
    }

    fn svg(&self) -> String {
        let [width, height] = [self.width, self.height()].map(|pixels| pixels * self.scale);
        let data = base64(&encode(&self.rgb, self.width));
        let (x, y) = self.at;
        format!(
            "<image x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" preserveAspectRatio=\"none\" \
             style=\"image-rendering:pixelated\" href=\"data:image/png;base64,{data}\"/>\n"
        )
    }
}

/// Writes `name.svg` and `name.png` into `folder`; gives the SVG.
///
/// # Errors
/// `Io` when the folder cannot be written to.
pub fn write(picture: &impl Picture, folder: &Path, name: &str) -> Result<String> {
    let drawing = |e: String| Error::internal("a picture", e);
    for (style, bytes) in [(FontStyle::Normal, dejavu::sans::regular()), (FontStyle::Bold, dejavu::sans::bold())] {
        register_font(FONT, style, bytes).map_err(|_| drawing("the font cannot be read".into()))?;
    }
    let (width, height) = picture.size();
    let mut svg = String::new();
    paint(&SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area(), picture)
        .map_err(|e| drawing(e.to_string()))?;
    let rasters: String = picture.rasters().iter().map(Raster::svg).collect();
    let svg = svg.replace("</svg>", &format!("{rasters}</svg>"));
    write_file(&folder.join(format!("{name}.svg")), svg.as_bytes())?;
    let mut pixels = vec![0; 3 * width as usize * height as usize];
    paint(&BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area(), picture)
        .map_err(|e| drawing(e.to_string()))?;
    picture.rasters().iter().for_each(|raster| raster.paint(&mut pixels, width as usize));
    write_file(&folder.join(format!("{name}.png")), &encode(&pixels, width as usize))?;
    Ok(svg)
}

fn paint<B: DrawingBackend>(area: &Area<B>, picture: &impl Picture) -> Drawn<B> {
    area.fill(&WHITE)?;
    picture.draw(area)?;
    area.present()
}

/// The plain face.
pub fn font(size: i32) -> FontDesc<'static> {
    (FONT, size).into_font()
}

/// `FontDesc::style` keeps the face it has loaded: a bold one must be asked for at once.
pub fn bold(size: i32) -> FontDesc<'static> {
    FontDesc::new(FontFamily::SansSerif, f64::from(size), FontStyle::Bold)
}

/// A heading, whose upper left corner is at `at`.
pub fn caption<B: DrawingBackend>(area: &Area<B>, text: &str, at: (i32, i32), size: i32) -> Drawn<B> {
    area.draw(&Text::new(text.to_owned(), at, bold(size).color(&INK)))
}

/// Text whose middle is as high as `at`.
pub fn write_at<B: DrawingBackend>(
    area: &Area<B>,
    text: &str,
    at: (i32, i32),
    size: i32,
    colour: RGBColor,
    h: HPos,
) -> Drawn<B> {
    let style = font(size).color(&colour).pos(Pos::new(h, VPos::Center));
    area.draw(&Text::new(text.to_owned(), at, style))
}

/// A line through points.
pub fn line<B: DrawingBackend>(area: &Area<B>, points: Vec<(i32, i32)>, colour: RGBColor, width: u32) -> Drawn<B> {
    area.draw(&PathElement::new(points, colour.stroke_width(width)))
}

/// A dashed line through points.
pub fn dashed<B: DrawingBackend>(area: &Area<B>, points: &[(i32, i32)], colour: RGBColor) -> Drawn<B> {
    let path = DashedLineSeries::new(points.iter().copied(), 9, 7, colour.stroke_width(2));
    path.into_iter().try_for_each(|element| area.draw(&element))
}
