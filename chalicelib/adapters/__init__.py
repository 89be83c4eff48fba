"""One outside system each: plain values in, our errors out."""
