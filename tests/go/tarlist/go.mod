module tarlist

go 1.18
