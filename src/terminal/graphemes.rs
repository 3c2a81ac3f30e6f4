//! Joins the code points of one visible character into one cell.
