module responses-gateway/benchmarks

go 1.19
