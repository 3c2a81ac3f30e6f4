//! What a program is told when it asks for colours.
//!
//! The user's terminal knows its own two main colours and tells them to the window; the palette beside them is the
//! standard one, since asking for 256 colours at each attach would cost more than a wrong shade.

use alacritty_terminal::vte::ansi::Rgb;

/// The colours that a program is told when it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colors {
    /// OSC 10.
    pub foreground: Rgb,
    /// OSC 11; also decides dark or light.
    pub background: Rgb,
}

impl Default for Colors {
    /// Light grey on near-black: what most terminals of programmers look like.
    fn default() -> Self {
        let grey = |level| Rgb {
            r: level,
            g: level,
            b: level,
        };
        Self {
            foreground: grey(0xd8),
            background: grey(0x18),
        }
    }
}

impl Colors {
    /// Whether the background is the lighter half of all colours.
    pub fn light(&self) -> bool {
        self.background.luminance() > 0.5
    }
}

/// The standard palette of xterm: 16 names, a cube of 6x6x6, 24 greys.
pub(crate) fn xterm(index: u8) -> Rgb {
    const NAMED: [u32; 16] = [
        0x0000_0000,
        0x00cd_0000,
        0x0000_cd00,
        0x00cd_cd00,
        0x0000_00ee,
        0x00cd_00cd,
        0x0000_cdcd,
        0x00e5_e5e5,
        0x007f_7f7f,
        0x00ff_0000,
        0x0000_ff00,
        0x00ff_ff00,
        0x005c_5cff,
        0x00ff_00ff,
        0x0000_ffff,
        0x00ff_ffff,
    ];
    let level = |step: u8| if step == 0 { 0 } else { 55 + 40 * step };
    match index {
        0..=15 => {
            let [_, r, g, b] = NAMED[usize::from(index)].to_be_bytes();
            Rgb { r, g, b }
        }
        16..=231 => {
            let cube = index - 16;
            Rgb {
                r: level(cube / 36),
                g: level(cube / 6 % 6),
                b: level(cube % 6),
            }
        }
        232..=255 => {
            let grey = 8 + 10 * (index - 232);
            Rgb {
                r: grey,
                g: grey,
                b: grey,
            }
        }
    }
}
