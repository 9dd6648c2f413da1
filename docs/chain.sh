DATA=$(mmtool sample clipart)  # 240 drawings with titles, spoken titles, keywords and categories; some are missing
mmtool extract "$DATA" -o feats -e image=effnet-lite0 -e title=minilm -e speech=whisper-tiny
mmtool train feats --target category -o model.safetensors
mmtool eval model.safetensors feats -o report
mmtool predict clipart/images/violin.png --text "An old violin" -m model.safetensors
echo '{"title": "A red fire engine"}' | mmtool predict - -m model.safetensors
mmtool predict "$DATA" -m model.safetensors -o predictions.jsonl
mmtool eval predictions.jsonl "$DATA" --target category -o check
mmtool fuse feats -o fused -f concat
mmtool train fused --target keywords=tag --target colour_bits=regress -o more.safetensors
mmtool train "$DATA" --target category -e image=effnet-lite0 -e title=minilm --finetune title --epochs 2 -o tuned.safetensors
mmtool info more.safetensors
