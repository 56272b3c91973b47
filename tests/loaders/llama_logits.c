/* Write the logits that llama.cpp's library computes for each of some tokens, with an adapter or without.
 *
 *     llama_logits LIBRARIES MODEL.gguf OUT ADAPTER.gguf|- TOKEN...
 *
 * OUT gets one row of 32-bit floats a token. It exits with 2 where the model, 3 where the adapter cannot be loaded, and
 * 4 where decoding fails; the library itself may abort. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ggml-backend.h"
#include "llama.h"

int main(int count, char **given) {
    if (count < 6) return 1;
    ggml_backend_load_all_from_path(given[1]);
    llama_backend_init();
    struct llama_model_params how = llama_model_default_params();
    how.n_gpu_layers = 0;
    struct llama_model *model = llama_model_load_from_file(given[2], how);
    if (model == NULL) return 2;

    int tokens = count - 5;
    struct llama_context_params context = llama_context_default_params();
    context.n_ctx = 64;
    context.n_batch = context.n_ubatch = 64;
    context.n_threads = context.n_threads_batch = 1;
    context.type_k = context.type_v = GGML_TYPE_F32;
    context.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    struct llama_context *running = llama_init_from_model(model, context);
    if (running == NULL) return 2;

    if (strcmp(given[4], "-") != 0) {
        struct llama_adapter_lora *adapter = llama_adapter_lora_init(model, given[4]);
        float scale = 1.0f;
        if (adapter == NULL || llama_set_adapters_lora(running, &adapter, 1, &scale) != 0) return 3;
    }

    struct llama_batch batch = llama_batch_init(tokens, 0, 1);
    batch.n_tokens = tokens;
    for (int i = 0; i < tokens; i++) {
        batch.token[i] = atoi(given[5 + i]);
        batch.pos[i] = i;
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i] = 1;
    }
    if (llama_decode(running, batch) != 0) return 4;

    int words = llama_vocab_n_tokens(llama_model_get_vocab(model));
    FILE *out = fopen(given[3], "wb");
    if (out == NULL) return 1;
    for (int i = 0; i < tokens; i++) fwrite(llama_get_logits_ith(running, i), sizeof(float), words, out);
    return fclose(out) == 0 ? 0 : 1;
}
