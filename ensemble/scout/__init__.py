"""`ens scout`: which backbones? Linear probes of many, and what each blend of up to four of them is worth and costs."""
