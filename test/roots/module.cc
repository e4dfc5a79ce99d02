// A library that tests open and close: one word each in .data and .bss, and one that is constant once it is relocated.
namespace {

int target;
void* data = &target;
void* bss;
void* const constant = &target;

}  // namespace

extern "C" {

void* const* module_data() { return &data; }
void** module_bss() { return &bss; }
void* const* module_constant() { return &constant; }
}
