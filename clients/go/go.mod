module sorteo/clients/go

go 1.19
