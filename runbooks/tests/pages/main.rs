//! Pages as a whole: the shipped ones are sound, a spoiled one is told what is wrong, and no page that loads
//! promotes before it fences.

mod orders;
mod shipped;
mod spoiled;
